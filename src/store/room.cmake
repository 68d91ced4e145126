# Dimension scales live in HDF5's high-level library.
find_package(HDF5 REQUIRED COMPONENTS C HL)
target_link_libraries(${target} PUBLIC ${HDF5_HL_LIBRARIES} ${HDF5_C_LIBRARIES})
