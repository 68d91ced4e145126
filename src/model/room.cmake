# Sampling runs over the whole vocabulary: its loops select without branches.
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/model/sampling.c PROPERTIES COMPILE_OPTIONS "-fno-trapping-math")
