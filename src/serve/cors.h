// Which web pages may use the server (Fetch standard, "CORS protocol"). A page of the server's own origin
// always may; others only if they are listed. Where no keys are asked for, a page that is not listed is
// refused, not just kept from reading the answer: its visitor's machine would do the work. Immutable.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/http.h"

namespace mlxs {

class CorsPolicy {
 public:
  // Each "https://host[:port]", or "*" for every page. Throws kInvalidArgument for anything else.
  explicit CorsPolicy(std::vector<std::string> origins = {});

  // The answer to a preflight, or 403 for a page that may not ask at all; nullopt: go on with the request.
  std::optional<HttpResponse> answer(const HttpRequest& request, bool keys_are_asked) const;

  // What lets the page read this request's response, whatever that is.
  std::vector<std::pair<std::string, std::string>> headers(const HttpRequest& request) const;

 private:
  bool allows(std::string_view origin) const;

  std::vector<std::string> origins_;  // in lower case
  bool any_ = false;
};

// The request does not come from a page of another origin. Browsers say so themselves (Sec-Fetch-Site) where
// they can, which holds behind a proxy that changes the host, too.
bool same_origin(const HttpRequest& request);

}  // namespace mlxs
