// Who may call which route: checked for every request before its handler runs. Pure; any thread.
#pragma once

#include <optional>
#include <variant>

#include "serve/api_keys.h"
#include "serve/router.h"

namespace mlxs {

// The caller, or 401 (no key, or a wrong one) or 403 (its role is not enough). Null caller: the route is
// open, or the server has no keys and asks nobody.
std::variant<const Caller*, HttpResponse> admit_caller(const ApiKeys& keys, Access access,
                                                       const HttpRequest& request);

}  // namespace mlxs
