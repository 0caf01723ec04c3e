# src/backend/mlx, compiled apart from the rest of backend/: only it sees MLX's headers. Its objects bring a registry of their
# own, which knows MLX. ON: they are part of mlxs_backend. TESTS: mlxs_use_mlx(target) adds them to a program, so that
# the product does not depend on a library in the tests' virtual environment.
file(GLOB mlx_wheels ${PROJECT_SOURCE_DIR}/.venv-test/lib/python3*/site-packages/mlx/share/cmake/MLX)
find_package(MLX CONFIG REQUIRED HINTS ${mlx_wheels})

file(GLOB mlx_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/mlx/*.cpp)
add_library(mlxs_backend_mlx OBJECT ${mlx_sources} ${PROJECT_SOURCE_DIR}/src/backend/registry.cpp)
target_link_libraries(mlxs_backend_mlx PRIVATE mlxs_base mlx)
target_compile_definitions(mlxs_backend_mlx PRIVATE MLXS_HAVE_MLX $<$<BOOL:${MLXS_CUDA}>:MLXS_HAVE_CUDA>)
mlxs_strict(mlxs_backend_mlx)

function(mlxs_use_mlx target)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:mlxs_backend_mlx>)
  target_link_libraries(${target} PRIVATE $<LINK_ONLY:mlx>)
endfunction()

if(MLXS_MLX STREQUAL "TESTS")
  return()
endif()
get_target_property(backend_sources mlxs_backend SOURCES)
list(FILTER backend_sources EXCLUDE REGEX "/backend/registry\\.cpp$")
set_target_properties(mlxs_backend PROPERTIES SOURCES "${backend_sources}")
mlxs_use_mlx(mlxs_backend)
