// `GET /`: the built-in page and its parts, embedded into the binary (src/serve/page, cmake/embed.cmake).
// Static and open to all: the calls that it makes need a key where the server asks for one.
#pragma once

#include "serve/router.h"

namespace mlxs {

void add_page_routes(Router& router);

}  // namespace mlxs
