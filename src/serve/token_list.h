// Token ids in a request body. Pure; throws kInvalidArgument naming the element.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serve/fields.h"

namespace mlxs {

std::vector<std::int32_t> read_tokens(const std::string& path, const Json& list);

}  // namespace mlxs
