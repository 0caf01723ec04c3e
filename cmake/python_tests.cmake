# pytest files as ctest entries, one each: tests/{e2e,parity,chaos}/**/test_*.py. scripts/run_tests.py counts their cases one by one
# from the JUnit files. Those of e2e and chaos run alone (RUN_SERIAL): each starts servers and loads the model.
set(MLXS_TEST_PYTHON ${PROJECT_SOURCE_DIR}/.venv-test/bin/python CACHE FILEPATH "Python with tests/requirements.txt")
set(MLXS_TEST_TIMEOUT 1800 CACHE STRING "Seconds that one pytest file may take")

file(GLOB_RECURSE python_tests CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/tests
  ${PROJECT_SOURCE_DIR}/tests/e2e/test_*.py ${PROJECT_SOURCE_DIR}/tests/parity/test_*.py ${PROJECT_SOURCE_DIR}/tests/chaos/test_*.py)
foreach(file IN LISTS python_tests)
  string(REGEX REPLACE "\\.py$" "" name ${file})
  string(REPLACE "/" "." name ${name})
  string(REGEX REPLACE "\\..*" "" label ${name})
  set(alone TRUE)
  set(cost 0)
  if(label STREQUAL "parity")
    set(alone FALSE)
    set(cost 200)  # they begin early
  endif()
  add_test(NAME ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMAND ${MLXS_TEST_PYTHON} -m pytest -q -rs --junitxml=${CMAKE_BINARY_DIR}/pytest/${name}.xml tests/${file})
  set_tests_properties(${name} PROPERTIES LABELS ${label} RUN_SERIAL ${alone} COST ${cost} TIMEOUT ${MLXS_TEST_TIMEOUT} ENVIRONMENT
    "MLXS_BIN=$<TARGET_FILE:mlx-serving>;MLXS_BUILD_DIR=${CMAKE_BINARY_DIR};PYTHONDONTWRITEBYTECODE=1")
endforeach()

# After the tests whose results it compares the page with; alone it has none and is skipped.
add_test(NAME docs.models WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${MLXS_TEST_PYTHON} scripts/models_table.py ${CMAKE_BINARY_DIR}/pytest --check)
set_tests_properties(docs.models PROPERTIES LABELS docs SKIP_RETURN_CODE 77
  DEPENDS "parity.families.test_families;parity.families.test_gguf")

add_test(NAME docs.clients WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${MLXS_TEST_PYTHON} scripts/clients_table.py ${CMAKE_BINARY_DIR}/pytest --check)
set_tests_properties(docs.clients PROPERTIES LABELS docs SKIP_RETURN_CODE 77
  DEPENDS "e2e.test_anthropic_client;e2e.test_client_helpers;e2e.test_embeddings;e2e.test_ollama_client;e2e.test_ollama_models;e2e.test_openai_client;e2e.test_openai_node;e2e.test_openai_responses")

add_test(NAME docs.cuda_chart COMMAND ${MLXS_TEST_PYTHON} ${PROJECT_SOURCE_DIR}/bench/cuda_chart.py --check)
set_tests_properties(docs.cuda_chart PROPERTIES LABELS docs)
