// Who may call which route: checked for every request before its handler runs. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "serve/api_keys.h"
#include "serve/router.h"

namespace mlxs {

// The caller, or 401 (no key, or a wrong one) or 403 (its role is not enough). Null caller: the route is
// open, or the server has no keys and asks nobody.
std::variant<const Caller*, HttpResponse> admit_caller(const ApiKeys& keys, Access access,
                                                       const HttpRequest& request);

// Who shares computed prompts with this request: its tenant (all tenants, if `shared`), and of these only
// those that sent an equal salt. Different callers and salts never make equal scopes.
std::string cache_scope(const Caller* caller, bool shared, std::string_view salt);

}  // namespace mlxs
