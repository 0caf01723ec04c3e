# libFuzzer targets (preset fuzz, clang): tests/fuzz/NAME.cpp → NAME, seeds in tests/fuzz/corpus/NAME. scripts/fuzz.sh runs them.
# Each has what it fuzzes and no more: the engine, its kernels and the Rust crates would take ten times as long to build.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "MLXS_FUZZ needs clang: cmake --preset fuzz")
endif()
add_custom_target(fuzzers)

# mlxs_fuzzer(NAME MODULES <modules> SOURCES <files of src/ whose module would bring too much>)
function(mlxs_fuzzer name)
  cmake_parse_arguments(ARG "" "" "MODULES;SOURCES" ${ARGN})
  list(TRANSFORM ARG_MODULES PREPEND mlxs_)
  list(TRANSFORM ARG_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/src/)
  add_executable(fuzz_${name} ${PROJECT_SOURCE_DIR}/tests/fuzz/${name}.cpp ${ARG_SOURCES})
  set_target_properties(fuzz_${name} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_MODULES} mlxs::json)
  target_include_directories(fuzz_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers fuzz_${name})
endfunction()

foreach(name gguf hf_config safetensors weight_index)
  mlxs_fuzzer(${name} MODULES formats)
endforeach()
mlxs_fuzzer(openai_request MODULES base SOURCES
  serve/chat_messages.cpp serve/error_response.cpp serve/fields.cpp serve/json_text.cpp serve/metadata_field.cpp serve/openai_request.cpp
  serve/qos_headers.cpp serve/sampling_defaults.cpp serve/structured_fields.cpp serve/thinking.cpp serve/token_list.cpp serve/tool_calls.cpp serve/tool_request.cpp)
