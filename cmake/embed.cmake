# cmake -DOUTPUT=FILE -DFILES=a;b -DNAMESPACE=page -P embed.cmake: a header with each file's bytes as a string_view
# in mlxs::NAMESPACE, named as the file with its dot as an underscore. Literals, cut where compilers limit them.
set(text "#pragma once\n\n#include <string_view>\n\nnamespace mlxs::${NAMESPACE} {\n")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  string(REPLACE "." "_" name ${name})
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" bytes "${hex}")
  string(REGEX REPLACE "((\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f]))" "\\1\"\n    \"" bytes "${bytes}")
  string(APPEND text "inline constexpr std::string_view ${name}(\n    \"${bytes}\");\n")
endforeach()
string(APPEND text "}  // namespace mlxs::${NAMESPACE}\n")
file(WRITE ${OUTPUT} "${text}")
