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

# The Metal kernel is compiled by MLX at run time: it travels as text.
set(metal_source ${PROJECT_SOURCE_DIR}/src/backend/mlx/paged_attention.metal)
set(metal_header ${PROJECT_BINARY_DIR}/generated/metal/paged_attention_metal.h)
add_custom_command(
  OUTPUT ${metal_header}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${metal_header} -DFILES=${metal_source} -DNAMESPACE=metal -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS ${metal_source} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  VERBATIM)
target_sources(mlxs_backend_mlx PRIVATE ${metal_header})
target_include_directories(mlxs_backend_mlx PRIVATE ${PROJECT_BINARY_DIR}/generated/metal)

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
