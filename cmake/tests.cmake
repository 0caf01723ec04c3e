# Unit tests: one executable a folder of tests/unit, linked with the module of the same name. Then what the Python tests need.
find_package(GTest REQUIRED)
include(GoogleTest)

file(GLOB unit_folders CONFIGURE_DEPENDS LIST_DIRECTORIES true ${PROJECT_SOURCE_DIR}/tests/unit/*)
foreach(folder IN LISTS unit_folders)
  get_filename_component(name ${folder} NAME)
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  if(NOT IS_DIRECTORY ${folder} OR NOT sources)
    continue()
  endif()
  add_executable(test_${name} ${sources})
  target_link_libraries(test_${name} PRIVATE mlxs_${name} GTest::gtest_main GTest::gmock)
  target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  mlxs_strict(test_${name})
  # A third less of the compiler's time; the backends' references compute too much for it.
  if(NOT name STREQUAL "backend" AND CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(test_${name} PRIVATE -O1)
  endif()
  if(MLXS_MLX STREQUAL "TESTS" AND name STREQUAL "backend")
    mlxs_use_mlx(test_${name})
  endif()
  gtest_discover_tests(test_${name} TEST_PREFIX "unit.${name}." DISCOVERY_TIMEOUT 60 PROPERTIES LABELS unit TIMEOUT 300)
endforeach()

# Programs that the parity tests drive; each folder says what it needs.
file(GLOB own_lists CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/parity/*/CMakeLists.txt)
foreach(list IN LISTS own_lists)
  get_filename_component(folder ${list} DIRECTORY)
  add_subdirectory(${folder})
endforeach()

add_subdirectory(${PROJECT_SOURCE_DIR}/tests/cuda_emulated)

find_package(Python3 REQUIRED COMPONENTS Interpreter)
# Half a minute on two cores; skipped without nvcc.
add_test(NAME lint.cuda_compiles COMMAND ${PROJECT_SOURCE_DIR}/scripts/cuda_compiles.sh)
set_tests_properties(lint.cuda_compiles PROPERTIES LABELS lint SKIP_RETURN_CODE 77 TIMEOUT 2400 PROCESSORS 2)
add_test(NAME lint.includes COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/check_includes.py)
set_tests_properties(lint.includes PROPERTIES LABELS lint)

include(${PROJECT_SOURCE_DIR}/cmake/python_tests.cmake)
