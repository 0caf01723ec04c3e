# mlxs_module(NAME DEPENDS <modules> LIBS <targets>): one static library from src/NAME, with only the arrows it names.

function(mlxs_strict target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
    -Wno-sign-conversion -Wno-missing-field-initializers $<$<BOOL:${MLXS_WERROR}>:-Werror>)
  # gcc 12 at -O3 sees out-of-bounds writes in std::vector::resize that are not there (gcc bugs 105329, 107852).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-array-bounds -Wno-stringop-overflow -Wno-restrict)
  endif()
endfunction()

# gcc 12's own intrinsics headers warn of uninitialized values (gcc bug 105593).
set(MLXS_INTRINSICS_QUIET "-Wno-uninitialized;-Wno-maybe-uninitialized")

# Files named *_avx2.cpp, *_avx512.cpp and *_amx.cpp are compiled for that instruction set and reached only by run-time dispatch.
function(mlxs_isa_flags)
  foreach(source IN LISTS ARGN)
    if(source MATCHES "_avx2\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "${MLXS_INTRINSICS_QUIET};-mavx2;-mfma;-mf16c")
    elseif(source MATCHES "_avx512\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "${MLXS_INTRINSICS_QUIET};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mfma;-mf16c;-mprefer-vector-width=512")
    elseif(source MATCHES "_amx\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "${MLXS_INTRINSICS_QUIET};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx512bf16;-mfma;-mf16c;-mamx-tile;-mamx-bf16;-mamx-int8;-mprefer-vector-width=512")
    endif()
  endforeach()
endfunction()

function(mlxs_module name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cli/main\\.cpp$")
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
    list(FILTER sources EXCLUDE REGEX "_(avx2|avx512|amx)\\.cpp$")
  endif()
  list(FILTER sources EXCLUDE REGEX "/backend/(mlx|cuda)/")  # cmake/mlx.cmake, cmake/cuda.cmake
  list(TRANSFORM ARG_DEPENDS PREPEND mlxs_)
  add_library(mlxs_${name} STATIC ${sources})
  mlxs_isa_flags(${sources})
  target_include_directories(mlxs_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(mlxs_${name} PUBLIC ${ARG_DEPENDS} ${ARG_LIBS})
  mlxs_strict(mlxs_${name})
endfunction()
