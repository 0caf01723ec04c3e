// What goes over the WebSocket gateway as text: one JSON object a message (docs/api.md). Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "serve/http.h"

namespace mlxs::ws {

// What clients send.
struct Request {
  std::string id, path, body;  // body: JSON
};
struct Cancel {
  std::string id;
};
struct Ping {};
using Message = std::variant<Request, Cancel, Ping>;
// Throws kInvalidJson or kInvalidArgument naming the field.
Message parse(std::string_view text);

// What the server sends. id: the request's own.
std::string response(std::string_view id, const HttpResponse& response);
std::string done(std::string_view id);
std::string cancelled(std::string_view id);
std::string warning(std::string_view id, std::string_view text);
std::string pong();
std::string error(const Error& error);  // of a message that is no request

// Cuts a stream as HTTP would carry it (server-sent events, or lines of JSON) into "chunk" messages.
class ChunkCutter {
 public:
  ChunkCutter(std::string_view id, std::string_view stream_type);
  // Calls out(message) for every event that is complete by now.
  template <class Out>
  void add(std::string_view bytes, Out out) {
    pending_ += bytes;
    for (std::string event; next(event);) {
      if (!event.empty()) out(std::move(event));
    }
  }

 private:
  bool next(std::string& message);  // false: none is complete; an empty message: one that is not passed on

  std::string id_;  // as JSON
  std::string_view separator_;
  std::string pending_;
};

}  // namespace mlxs::ws
