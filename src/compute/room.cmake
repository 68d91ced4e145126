# The kernels are compiled once per instruction set; contraction is written out where it is wanted.
target_compile_options(${target} PRIVATE -ffp-contract=off)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_compile_definitions(${target} PRIVATE PX_KERNELS_X86)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/compute/kernels_avx2.c PROPERTIES
    COMPILE_OPTIONS "-mavx2;-mfma;-mprfchw")
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/compute/kernels_avx512.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-mavx2;-mfma;-mprfchw;-mprefer-vector-width=512")
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/compute/kernels_bf16.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-mavx512bf16;-mavx2;-mfma;-mprfchw;-mprefer-vector-width=512")
  set_source_files_properties(${CMAKE_SOURCE_DIR}/src/compute/kernels_amx.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-mavx512bf16;-mamx-tile;-mamx-bf16;-mavx2;-mfma;-mprfchw;-mprefer-vector-width=512")
endif()
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/compute/kernels_generic.c
  ${CMAKE_SOURCE_DIR}/src/compute/kernels_avx2.c ${CMAKE_SOURCE_DIR}/src/compute/kernels_avx512.c
  PROPERTIES INCLUDE_DIRECTORIES ${CMAKE_SOURCE_DIR}/src/compute)

if(PHALANX_ONEDNN)
  find_path(ONEDNN_INCLUDE_DIR oneapi/dnnl/dnnl.h) # its library is opened at run time
  if(ONEDNN_INCLUDE_DIR)
    set_property(SOURCE ${CMAKE_SOURCE_DIR}/src/compute/roof_onednn.c APPEND PROPERTY COMPILE_DEFINITIONS PX_ONEDNN)
    set_property(SOURCE ${CMAKE_SOURCE_DIR}/src/compute/roof_onednn.c APPEND PROPERTY
                 INCLUDE_DIRECTORIES ${ONEDNN_INCLUDE_DIR})
  endif()
endif()
