// Which handler a method and path go to. Filled once, then read by any thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http.h"

namespace mlxs {

class Router {
 public:
  // rest: what stands for the pattern's "{…}", empty without one.
  using Handler = std::function<Reply(const HttpRequest& request, std::string_view rest)>;

  // A pattern is a path, or a path that ends with "/{…}", which matches any non-empty rest, slashes included.
  void add(std::string method, std::string pattern, Handler handler);

  // The handler's reply; 404 and 405 (with Allow) as responses. HEAD goes to GET. Handlers' exceptions pass.
  Reply dispatch(const HttpRequest& request) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    Handler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace mlxs
