-- Module file for Lmod: in a directory of MODULEPATH as phalanx/VERSION.lua (module use $HOME/modulefiles). Names and versions of
-- what it loads differ from site to site; load what the program was built with.
whatis("Name: Phalanx")
whatis("Description: aligns language models by reinforcement learning from human feedback, on plain MPI ranks")
help([[phalanx --help; phalanx plan CONFIG; phalanx submit CONFIG]])

local prefix = pathJoin(os.getenv("HOME"), "phalanx")

depends_on("gcc", "openmpi", "openblas", "hdf5")
prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("LD_LIBRARY_PATH", pathJoin(prefix, "lib"))
setenv("PHALANX", pathJoin(prefix, "bin", "phalanx"))
