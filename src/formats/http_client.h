// One HTTP GET, blocking, over libcurl: redirects followed (credentials stay with the first host), a stalled
// connection given up. Any thread. Nothing is retried here; a transport failure is a value, not an exception.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stop_token>
#include <string>

namespace mlxs {

struct FetchAnswer {
  long status = 0;                             // 0: no answer
  std::map<std::string, std::string> headers;  // of the last answer, names in lower case
  std::string body;                            // of other answers than 200 and 206, cut to 64 KiB
  std::string failure;                         // why the transfer did not complete; empty: it did
};

struct FetchRequest {
  std::string url;            // http: or https:
  std::string token;          // sent as a bearer token; empty: none
  std::uint64_t from = 0;     // > 0: asks for the bytes from there on
  int stall_seconds = 30;     // without a byte: given up
  std::stop_token stop = {};  // ends the transfer as a failure
  // Called with pieces of a 200 or 206 answer, whose head is known by then. What it throws ends the transfer
  // and leaves http_get().
  std::function<void(const FetchAnswer& head, std::span<const std::byte> piece)> on_body;
};

FetchAnswer http_get(const FetchRequest& request);
std::string url_escape(const std::string& text);  // "/" too

}  // namespace mlxs
