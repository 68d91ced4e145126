#%Module1.0
# Module file for Environment Modules: in a directory of MODULEPATH as phalanx/VERSION (module use $HOME/modulefiles). Names and
# versions of what it loads differ from site to site; load what the program was built with.
module-whatis "Phalanx aligns language models by reinforcement learning from human feedback, on plain MPI ranks"

set prefix $env(HOME)/phalanx

foreach name {gcc openmpi openblas hdf5} {
    if {![is-loaded $name]} { module load $name }
}
prepend-path PATH $prefix/bin
prepend-path LD_LIBRARY_PATH $prefix/lib
setenv PHALANX $prefix/bin/phalanx
