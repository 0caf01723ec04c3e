# `cmake --install`: the program, the public headers, and the engine as a package for find_package(mlx-serving).
include(CMakePackageConfigHelpers)

install(TARGETS mlx-serving RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mlxs DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# engine/ and everything below it, as static libraries; a user links only mlx-serving::engine.
set_target_properties(mlxs_engine PROPERTIES EXPORT_NAME engine)
target_compile_features(mlxs_base PUBLIC cxx_std_20)
install(TARGETS mlxs_base mlxs_backend mlxs_formats mlxs_text mlxs_models mlxs_kv mlxs_sched mlxs_engine
                mlxs_spdlog mlxs_rust
        EXPORT mlx-serving-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${MLXS_RUST_LIB} DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME libmlxs_rust.a)  # libmlxs_text.a is the C++ half

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mlx-serving)
install(EXPORT mlx-serving-targets NAMESPACE mlx-serving:: DESTINATION ${package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/mlx-serving-config.cmake.in
  ${CMAKE_BINARY_DIR}/mlx-serving-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/mlx-serving-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/mlx-serving-config.cmake ${CMAKE_BINARY_DIR}/mlx-serving-config-version.cmake
        DESTINATION ${package_dir})
