// GET and PUT /v1/log: the log's level, read and changed while the server runs. An admin's.
#pragma once

#include "serve/fields.h"
#include "serve/router.h"

namespace mlxs {

void add_log_routes(Router& router);
Json log_level_schema();  // of the body of PUT

}  // namespace mlxs
