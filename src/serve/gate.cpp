#include "serve/gate.h"

#include <fmt/format.h>

#include "serve/dialects.h"
#include "serve/error_response.h"

namespace mlxs {

std::variant<const Caller*, HttpResponse> admit_caller(const ApiKeys& keys, Access access,
                                                       const HttpRequest& request) {
  if (keys.empty() || access == Access::kOpen) return nullptr;
  const std::string_view key = presented_key(request);
  const Caller* caller = key.empty() ? nullptr : keys.find(key);
  if (caller == nullptr) {
    const Error error(ErrorCode::kUnauthorized,
                      key.empty() ? "the request has no API key" : "the API key is not known",
                      "send 'Authorization: Bearer KEY' or 'x-api-key: KEY'");
    HttpResponse response = error_response(error, 0, error_body_of(request.path));
    response.headers.emplace_back("www-authenticate", "Bearer");
    return response;
  }
  if (access == Access::kAdmin && caller->role != Role::kAdmin) {
    return error_response(
        Error(ErrorCode::kForbidden,
              fmt::format("tenant '{}' may not {} {}", caller->tenant, request.method, request.path),
              "use the key of an admin"),
        0, error_body_of(request.path));
  }
  return caller;
}

std::string cache_scope(const Caller* caller, bool shared, std::string_view salt) {
  if (caller == nullptr || shared) return std::string(salt);
  return fmt::format("{}:{}{}", caller->tenant.size(), caller->tenant, salt);
}

}  // namespace mlxs
