#include "serve/token_list.h"

#include <fmt/format.h>

namespace mlxs {

std::vector<std::int32_t> read_tokens(const std::string& path, const Json& list) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& value = list[i];
    if (value.is_number_unsigned() && value.get<std::uint64_t>() <= INT32_MAX) {
      tokens.push_back(value.get<std::int32_t>());
      continue;
    }
    const std::string element = fmt::format("{}[{}]", path, i);  // to be named if it is refused
    check_value({.name = {}, .type = FieldType::kInteger, .minimum = 0, .maximum = INT32_MAX}, element,
                value);
    tokens.push_back(static_cast<std::int32_t>(as_integer(element, value)));
  }
  return tokens;
}

}  // namespace mlxs
