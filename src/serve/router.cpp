#include "serve/router.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "serve/dialects.h"
#include "serve/error_response.h"

namespace mlxs {
namespace {

// The rest that the path leaves for the pattern; nullopt: no match.
std::optional<std::string_view> match(std::string_view pattern, std::string_view path) {
  const std::size_t brace = pattern.find('{');
  if (brace == std::string_view::npos)
    return path == pattern ? std::optional<std::string_view>("") : std::nullopt;
  if (path.size() <= brace || !path.starts_with(pattern.substr(0, brace))) return std::nullopt;
  return path.substr(brace);
}

std::string_view asked_method(const HttpRequest& request) {
  return request.method == "HEAD" ? "GET" : std::string_view(request.method);
}

}  // namespace

void Router::add(std::string method, std::string pattern, Handler handler, Access access) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler), access});
}

const Router::Route* Router::find(const HttpRequest& request) const {
  const std::string_view method = asked_method(request);
  for (const Route& route : routes_) {
    if (route.method == method && match(route.pattern, request.path)) return &route;
  }
  return nullptr;
}

Access Router::access_of(const HttpRequest& request) const {
  const Route* route = find(request);
  return route != nullptr ? route->access : Access::kUser;
}

std::optional<Access> Router::access_of_pattern(std::string_view method, std::string_view pattern) const {
  for (const Route& route : routes_) {
    if (route.method == method && route.pattern == pattern) return route.access;
  }
  return std::nullopt;
}

std::vector<std::pair<std::string, std::string>> Router::patterns() const {
  std::vector<std::pair<std::string, std::string>> all;
  for (const Route& route : routes_) all.emplace_back(route.method, route.pattern);
  return all;
}

Reply Router::dispatch(const HttpRequest& request) const {
  if (const Route* route = find(request)) {
    return route->handler(request, *match(route->pattern, request.path));
  }
  std::string allowed, known;
  const auto append = [](std::string& list, const std::string& item) {
    list += (list.empty() ? "" : ", ") + item;
  };
  for (const Route& route : routes_) {
    append(known, route.method + " " + route.pattern);
    if (match(route.pattern, request.path))
      append(allowed, route.method == "GET" ? "GET, HEAD" : route.method);
  }
  if (allowed.empty()) {
    return error_response(
        Error(ErrorCode::kNotFound, fmt::format("there is no {} {}", request.method, request.path),
              "there are " + known),
        0, error_body_of(request.path));
  }
  HttpResponse response = error_response(
      Error(ErrorCode::kMethodNotAllowed,
            fmt::format("{} is not a method of {}", request.method, request.path), "use " + allowed),
      0, error_body_of(request.path));
  response.headers.emplace_back("allow", allowed);
  return response;
}

}  // namespace mlxs
