#include "serve/websocket_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "serve/error_response.h"
#include "serve/json_text.h"

namespace mlxs::ws {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestId = 128;
constexpr int kDeepest = 64;  // levels of nesting: the parser recurses

std::string required(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string() || found->get_ref<const std::string&>().empty()) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' must be a text that is not empty", name), "",
                name);
  }
  return found->get<std::string>();
}

std::string id_of(const json& object) {
  std::string id = required(object, "id");
  if (id.size() <= kLongestId) return id;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("'id' has {} bytes, at most {} are allowed", id.size(), kLongestId), "", "id");
}

json parse_json(std::string_view text) {
  bool deep = false;
  const auto shallow = [&deep](int depth, json::parse_event_t, json&) {
    deep = deep || depth > kDeepest;
    return !deep;
  };
  json value = json::parse(text, shallow, false);
  if (deep || value.is_discarded() || !value.is_object()) {
    throw Error(ErrorCode::kInvalidJson,
                deep ? "the message is nested too deeply" : "the message is not a JSON object",
                R"(send {"type":"request","id":"1","path":"/v1/chat/completions","body":{…}})");
  }
  return value;
}

// The lines of one event that matter: its name, and its data.
struct Event {
  std::string_view name, data;
};
Event read_event(std::string_view text) {
  Event event;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with("event: ")) event.name = line.substr(7);
    if (line.starts_with("data: ")) event.data = line.substr(6);
  }
  return event;
}

}  // namespace

Message parse(std::string_view text) {
  const json object = parse_json(text);
  const std::string type = required(object, "type");
  if (type == "ping") return Ping{};
  if (type == "cancel") return Cancel{id_of(object)};
  if (type != "request") {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there are no messages of type '{}'", type),
                "there are request, cancel and ping", "type");
  }
  Request request{.id = id_of(object), .path = required(object, "path"), .body = {}};
  const auto body = object.find("body");
  if (body == object.end() || !body->is_object()) {
    throw Error(ErrorCode::kInvalidArgument, "'body' must be an object", "it is what HTTP would carry",
                "body");
  }
  request.body = body->dump(-1, ' ', false, json::error_handler_t::replace);
  return request;
}

std::string response(std::string_view id, const HttpResponse& response) {
  std::string headers;
  for (const auto& [name, value] : response.headers) {
    headers += fmt::format("{}{}:{}", headers.empty() ? "" : ",", json_string(name), json_string(value));
  }
  const bool is_json = response.content_type.starts_with("application/json") && !response.body.empty();
  return fmt::format(R"({{"type":"response","id":{},"status":{},"headers":{{{}}},"body":{}}})",
                     json_string(id), response.status, headers,
                     is_json ? response.body : json_string(response.body));
}

std::string done(std::string_view id) { return fmt::format(R"({{"type":"done","id":{}}})", json_string(id)); }

std::string cancelled(std::string_view id) {
  return fmt::format(R"({{"type":"cancelled","id":{}}})", json_string(id));
}

std::string warning(std::string_view id, std::string_view text) {
  return fmt::format(R"({{"type":"warning","id":{},"message":{}}})", json_string(id), json_string(text));
}

std::string pong() { return R"({"type":"pong"})"; }

std::string error(const Error& error) {
  std::string body = error_json(error);
  return R"({"type":"error",)" + body.substr(1);  // {"error":{…}} with a type
}

ChunkCutter::ChunkCutter(std::string_view id, std::string_view stream_type)
    : id_(json_string(id)), separator_(stream_type == kJsonLines ? "\n" : "\n\n") {}

bool ChunkCutter::next(std::string& message) {
  message.clear();
  const std::size_t end = pending_.find(separator_);
  if (end == std::string::npos) return false;
  const std::string_view text = std::string_view(pending_).substr(0, end);
  const Event event = separator_.size() == 1 ? Event{.name = {}, .data = text} : read_event(text);
  if (!event.data.empty() && event.data != "[DONE]") {
    message = fmt::format(R"({{"type":"chunk","id":{},)", id_);
    if (!event.name.empty()) message += fmt::format(R"("event":{},)", json_string(event.name));
    message += fmt::format(R"("data":{}}})", event.data);
  }
  pending_.erase(0, end + separator_.size());
  return true;
}

}  // namespace mlxs::ws
