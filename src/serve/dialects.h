// Which dialect a path belongs to, for answers that are given before its handler: refusals, unknown routes.
// Pure.
#pragma once

#include <string_view>

#include "serve/http.h"

namespace mlxs {

// How errors read there; null: as OpenAI's.
ErrorBody error_body_of(std::string_view path);

}  // namespace mlxs
