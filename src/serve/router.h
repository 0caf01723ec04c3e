// Which handler a method and path go to. Filled once, then read by any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/http.h"

namespace mlxs {

// Who may call a route, where the server asks for keys.
enum class Access : std::uint8_t { kOpen, kUser, kAdmin };

class Router {
 public:
  // rest: what stands for the pattern's "{…}", empty without one.
  using Handler = std::function<Reply(const HttpRequest& request, std::string_view rest)>;

  // A pattern is a path, or a path that ends with "/{…}", which matches any non-empty rest, slashes included.
  void add(std::string method, std::string pattern, Handler handler, Access access = Access::kUser);

  // Of the route that dispatch() would take; kUser if there is none: strangers do not learn what there is.
  Access access_of(const HttpRequest& request) const;

  // Of the route that was added so; nullopt: there is none.
  std::optional<Access> access_of_pattern(std::string_view method, std::string_view pattern) const;
  // Method and pattern of every route.
  std::vector<std::pair<std::string, std::string>> patterns() const;

  // The handler's reply; 404 and 405 (with Allow) as responses. HEAD goes to GET. Handlers' exceptions pass.
  Reply dispatch(const HttpRequest& request) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    Handler handler;
    Access access;
  };
  const Route* find(const HttpRequest& request) const;  // null: none

  std::vector<Route> routes_;
};

}  // namespace mlxs
