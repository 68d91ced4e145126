# ULFM: MPI that reports which ranks have died and goes on without them (Open MPI 5 and later, where it was built with it).
include(CheckSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES MPI::MPI_C)
check_symbol_exists(MPIX_FT "mpi.h;mpi-ext.h" PHALANX_ULFM)
if(PHALANX_ULFM)
  target_compile_definitions(${target} PRIVATE PX_ULFM)
endif()
