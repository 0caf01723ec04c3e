# The built-in page: src/serve/page becomes a header of the serve module.
set(page_files index.html page.css page.js markdown.js live.js)
list(TRANSFORM page_files PREPEND ${PROJECT_SOURCE_DIR}/src/serve/page/)
set(page_header ${PROJECT_BINARY_DIR}/generated/page_assets.h)
add_custom_command(
  OUTPUT ${page_header}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${page_header} "-DFILES=${page_files}" -DNAMESPACE=page -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS ${page_files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  VERBATIM)
target_sources(mlxs_serve PRIVATE ${page_header})
target_include_directories(mlxs_serve PRIVATE ${PROJECT_BINARY_DIR}/generated)
