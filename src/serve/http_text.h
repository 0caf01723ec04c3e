// HTTP/1.1 as text: the head of a response and the target of a request. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mlxs {

struct ResponseHead {
  int status = 200;
  int version = 11;  // the request's: 10 or 11
  bool keep_alive = true;
  std::string_view content_type;  // empty: none, as of status 204
  std::string_view request_id;
  std::optional<std::size_t> length;  // none: chunked, or until the connection closes for version 10
  std::vector<std::pair<std::string, std::string>> headers;
};
std::string render_head(const ResponseHead& head);

std::string lower_case(std::string_view text);  // ASCII letters only

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string http_date(std::int64_t unix_s);

// The decoded path of a request target, without the query; nullopt if it is malformed or no path.
std::optional<std::string> decode_path(std::string_view target);

// What follows the target's '?', as it was sent, without a fragment; empty without one.
std::string query_of(std::string_view target);

// `text` as one header value: what is not visible ASCII becomes '?', and what is too long is cut.
std::string header_value(std::string_view text);

}  // namespace mlxs
