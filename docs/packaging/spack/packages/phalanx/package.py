# Spack recipe of the checkout that it lies in; PHALANX_GIT names another repository.
#   spack repo add docs/packaging/spack && spack install phalanx
import os
import pathlib

from spack.package import *

try:  # Spack 1.0 and later keep build systems in a package repository
    from spack_repo.builtin.build_systems.cmake import CMakePackage
except ImportError:
    pass


class Phalanx(CMakePackage):
    """Aligns language models by reinforcement learning from human feedback, on plain MPI ranks."""

    git = os.environ.get("PHALANX_GIT", "file://" + str(pathlib.Path(__file__).resolve().parents[5]))

    license("Apache-2.0")

    version("main", branch="main")

    depends_on("c", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("openblas")
    depends_on("hdf5@1.10:")
    depends_on("libyaml")
    depends_on("jansson@2.7:")
    depends_on("pcre2")
    depends_on("utf8proc")
    depends_on("xxhash")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("cmocka", type="test")

    def cmake_args(self):
        return [self.define("BUILD_TESTING", self.run_tests)]

    def check(self):
        """The tests of one process; those of MPI and Slurm are for a compute node."""
        with working_dir(self.build_directory):
            ctest("-L", "unit|grad|golden", "--output-on-failure")
