# The named schemas of GET /openapi.json: src/serve/openapi becomes a header of the serve module.
set(schema_files ${PROJECT_SOURCE_DIR}/src/serve/openapi/components.json)
set(schema_header ${PROJECT_BINARY_DIR}/generated/openapi_components.h)
add_custom_command(
  OUTPUT ${schema_header}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${schema_header} "-DFILES=${schema_files}" -DNAMESPACE=openapi -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS ${schema_files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  VERBATIM)
target_sources(mlxs_serve PRIVATE ${schema_header})
