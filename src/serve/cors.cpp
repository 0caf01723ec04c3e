#include "serve/cors.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/dialects.h"
#include "serve/error_response.h"
#include "serve/http_text.h"

namespace mlxs {
namespace {

constexpr const char* kMethods = "GET, HEAD, POST, PUT, PATCH, DELETE";
constexpr const char* kReadable =
    "x-request-id, x-mlxs-warning, retry-after, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, "
    "x-ratelimit-reset-tokens";
constexpr const char* kPreflightSeconds = "600";
constexpr int kNoContent = 204;

std::string canonical_origin(const std::string& origin) {
  const auto refuse = [&origin] {
    return Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is not an origin", origin),
                 "give https://host or http://host:port, without a path, or * for every page", "cors_origin");
  };
  const std::size_t scheme = origin.find("://");
  if (scheme == std::string::npos || scheme == 0) throw refuse();
  const std::string_view host = std::string_view(origin).substr(scheme + 3);
  if (host.empty() || host.find_first_of("/?#@*, ") != std::string_view::npos) throw refuse();
  return lower_case(origin);
}

bool is_preflight(const HttpRequest& request) {
  return request.method == "OPTIONS" && !request.header("access-control-request-method").empty();
}

}  // namespace

CorsPolicy::CorsPolicy(std::vector<std::string> origins) {
  for (const std::string& origin : origins) {
    if (origin == "*") {
      any_ = true;
    } else {
      origins_.push_back(canonical_origin(origin));
    }
  }
}

bool CorsPolicy::allows(std::string_view origin) const {
  return any_ || std::find(origins_.begin(), origins_.end(), lower_case(origin)) != origins_.end();
}

bool same_origin(const HttpRequest& request) {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || request.header("sec-fetch-site") == "same-origin") return true;
  const std::size_t scheme = origin.find("://");
  return scheme != std::string_view::npos &&
         lower_case(origin.substr(scheme + 3)) == lower_case(request.header("host"));
}

std::optional<HttpResponse> CorsPolicy::answer(const HttpRequest& request, bool keys_are_asked) const {
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return std::nullopt;
  const bool preflight = is_preflight(request);
  const bool allowed = allows(origin);
  if (!allowed && !same_origin(request) && (preflight || !keys_are_asked)) {
    return error_response(
        Error(ErrorCode::kForbidden, fmt::format("pages of {} may not use this server", header_value(origin)),
              "start it with --cors-origin ORIGIN"),
        0, error_body_of(request.path));
  }
  if (!preflight || !allowed) return std::nullopt;
  HttpResponse response{.status = kNoContent, .content_type = {}};
  response.headers.emplace_back("access-control-allow-methods", kMethods);
  const std::string_view wanted = request.header("access-control-request-headers");
  if (!wanted.empty()) response.headers.emplace_back("access-control-allow-headers", header_value(wanted));
  if (request.header("access-control-request-private-network") == "true") {
    response.headers.emplace_back("access-control-allow-private-network", "true");
  }
  response.headers.emplace_back("access-control-max-age", kPreflightSeconds);
  return response;
}

std::vector<std::pair<std::string, std::string>> CorsPolicy::headers(const HttpRequest& request) const {
  std::vector<std::pair<std::string, std::string>> result;
  if (!any_ && origins_.empty()) return result;
  if (!any_) result.emplace_back("vary", "origin");  // caches keep one answer an origin
  const std::string_view origin = request.header("origin");
  if (origin.empty() || !allows(origin)) return result;
  result.emplace_back("access-control-allow-origin", any_ ? "*" : header_value(origin));
  result.emplace_back("access-control-expose-headers", kReadable);
  return result;
}

}  // namespace mlxs
