# src/backend/mlx, compiled apart from the rest of backend/: only it and the registry see MLX's headers.
file(GLOB mlx_wheels ${PROJECT_SOURCE_DIR}/.venv-test/lib/python3*/site-packages/mlx/share/cmake/MLX)
find_package(MLX CONFIG REQUIRED HINTS ${mlx_wheels})

file(GLOB mlx_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/mlx/*.cpp)
add_library(mlxs_backend_mlx OBJECT ${mlx_sources})
target_link_libraries(mlxs_backend_mlx PRIVATE mlxs_base mlx)
mlxs_strict(mlxs_backend_mlx)
target_sources(mlxs_backend PRIVATE $<TARGET_OBJECTS:mlxs_backend_mlx>)
target_link_libraries(mlxs_backend PRIVATE $<LINK_ONLY:mlx>)
set_source_files_properties(src/backend/registry.cpp PROPERTIES COMPILE_DEFINITIONS MLXS_HAVE_MLX)
