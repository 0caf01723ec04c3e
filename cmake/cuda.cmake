# src/backend/cuda: compiled by nvcc from a system toolkit (>= 12.8), else from the wheels of scripts/cuda_toolkit.sh. The
# runtime is linked statically, so the program also starts where there is no driver.
include(CheckLanguage)
set(MLXS_CUDA_ARCHITECTURES "80-real;89-real;90a-real;100-real;120" CACHE STRING "GPUs to compile for, as CMAKE_CUDA_ARCHITECTURES")
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  file(GLOB wheel_bins ${PROJECT_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/nvidia/cu*/bin)
  find_program(MLXS_NVCC nvcc HINTS /usr/local/cuda/bin PATHS ${wheel_bins})
  if(NOT MLXS_NVCC)
    message(FATAL_ERROR "MLXS_CUDA=ON needs nvcc: install the CUDA toolkit (12.8 or newer) or run scripts/cuda_toolkit.sh")
  endif()
  set(CMAKE_CUDA_COMPILER ${MLXS_NVCC})
endif()
if(MLXS_CUDA_ARCHITECTURES MATCHES "(^|;)90(-|;|$)")
  message(FATAL_ERROR "MLXS_CUDA_ARCHITECTURES=${MLXS_CUDA_ARCHITECTURES}: write 90a for 90, Hopper's kernels need its own instructions")
endif()
if(MLXS_CUDA_ARCHITECTURES MATCHES "native|all")
  message(FATAL_ERROR "MLXS_CUDA_ARCHITECTURES=${MLXS_CUDA_ARCHITECTURES}: name them, as 80-real;90a-real does")
endif()
set(CMAKE_CUDA_ARCHITECTURES ${MLXS_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
get_filename_component(cuda_bin ${CMAKE_CUDA_COMPILER} DIRECTORY)
get_filename_component(cuda_root ${cuda_bin} DIRECTORY)
if(EXISTS ${cuda_root}/lib/libcudart_static.a)  # the wheels' layout, which nvcc's own profile does not know
  set(CMAKE_CUDA_FLAGS_INIT "-L${cuda_root}/lib")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  message(FATAL_ERROR "MLXS_CUDA=ON needs CUDA 12.8 or newer; ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
if(MLXS_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${MLXS_CCACHE})
endif()
set(CMAKE_CUDA_STANDARD 17)  # Debian 12's CMake knows no later one of nvcc's
set(CMAKE_CUDA_EXTENSIONS OFF)
find_library(MLXS_CUDART cudart_static HINTS ${cuda_root}/lib64 ${cuda_root}/lib ${cuda_root}/targets/x86_64-linux/lib REQUIRED)

# The wheel's cuBLASLt, for the programs of this folder; dlopen() looks there, too. An installed program takes the system's.
file(GLOB cublas ${PROJECT_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/nvidia/cu*/lib/libcublasLt.so*)
foreach(library ${cublas})
  get_filename_component(cublas_folder ${library} DIRECTORY)
  list(APPEND CMAKE_BUILD_RPATH ${cublas_folder})
endforeach()

file(GLOB cuda_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cuda/*.cu)
file(GLOB cuda_hosts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cuda/*.cpp)
# The kernels see no header of the project but their own, so they need none of its libraries.
add_library(mlxs_cuda_kernels OBJECT ${cuda_kernels})
target_include_directories(mlxs_cuda_kernels PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(mlxs_cuda_kernels PRIVATE -Xcompiler=-Wall,-Wextra --expt-relaxed-constexpr -lineinfo
  $<$<BOOL:${MLXS_WERROR}>:-Werror=all-warnings>)

string(REPLACE ";" "," architectures "${MLXS_CUDA_ARCHITECTURES}")
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/backend/cuda/cuda_factory.cpp PROPERTIES
  COMPILE_DEFINITIONS "MLXS_CUDA_ARCHITECTURES=\"${architectures}\"")
target_sources(mlxs_backend PRIVATE ${cuda_hosts} $<TARGET_OBJECTS:mlxs_cuda_kernels>)
target_compile_definitions(mlxs_backend PRIVATE MLXS_HAVE_CUDA)
target_include_directories(mlxs_backend SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(mlxs_backend PRIVATE $<LINK_ONLY:${MLXS_CUDART}> ${CMAKE_DL_LIBS} rt)
