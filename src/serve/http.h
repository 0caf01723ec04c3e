// The seam between sockets and dialects: a request as plain values, and the kinds of reply. A dialect
// says what to generate and how chunks read on the wire; it knows no socket, thread or engine queue.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mlxs/engine.h"

namespace mlxs {

struct Caller;
class RequestTrace;

struct HttpRequest {
  std::string method;                                        // "GET"
  std::string path;                                          // decoded, without the query
  std::string query;                                         // as sent, without the '?'
  std::vector<std::pair<std::string, std::string>> headers;  // in order; names in lower case
  std::string peer;                                          // the client's address, without its port
  std::string body;
  std::string id;  // x-request-id: the client's, or made up
  std::chrono::steady_clock::time_point received = std::chrono::steady_clock::now();
  // Set while it is prepared.
  const Caller* caller = nullptr;       // null: the route is open, or the server asks nobody for a key
  std::string tenant;                   // the caller's; empty where nobody is asked for a key
  std::shared_ptr<RequestTrace> trace;  // of a request to the engine

  // The value of the first header of that name (in lower case); empty without one.
  std::string_view header(std::string_view name) const {
    for (const auto& [own_name, value] : headers) {
      if (own_name == name) return value;
    }
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;  // beyond those that every response has
};

// Content types of streams.
inline constexpr std::string_view kEventStream = "text/event-stream; charset=utf-8";
inline constexpr std::string_view kJsonLines = "application/x-ndjson";

// Turns the chunks of one request's choices into what its client reads. Used by one thread at a time.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  // The next chunk of a choice, token or done; appends what can be sent by now.
  virtual void add(std::size_t choice, const Chunk& chunk, std::string& out) = 0;
  // Every choice is done.
  virtual void finish(std::string& out) = 0;
  // A stream that has begun ends here, because of this.
  virtual void fail(const Error& error, std::string& out) = 0;
  virtual std::string_view stream_type() const { return kEventStream; }
};

// The body of an error in a dialect's words; null: OpenAI's.
using ErrorBody = std::string (*)(const Error& error);

// A request that the engine answers: prompts × n choices, choice number = prompt × n + i.
struct Generation {
  std::vector<GenerateParams> prompts;  // one each; params.seed is choice 0's, choice i has seed + i
  int n = 1;
  bool stream = false;  // server-sent events as they come; else one JSON document at the end
  std::unique_ptr<AnswerFormat> format;
  ErrorBody error_body = nullptr;                               // of a failure before anything was sent
  std::map<std::string, std::string, std::less<>> field_names;  // engine's name → client's, where they differ
  std::vector<std::string> warnings;                            // told in x-mlxs-warning and logged
  std::string metadata;         // labels that the client gave it, as a JSON object; empty: none
  std::shared_ptr<void> lease;  // held until the answer is over, however it ends; may be null
};

// What a client reads while something other than the engine works for it: the progress of a download. Used by
// one thread at a time; destroying it ends the work, as far as work can be ended.
class Feed {
 public:
  virtual ~Feed() = default;
  // Appends what there is by now; true: that was the end. Never blocks. Throws mlxs::Error: the work failed.
  virtual bool take(std::string& out) = 0;
  // Called once, on any thread (or at once), when take() has something to do.
  virtual void notify_when_ready(const std::function<void()>& wake) = 0;
  // A stream that has begun ends here, because of this.
  virtual void fail(const Error& error, std::string& out) = 0;
};

struct FeedReply {
  std::unique_ptr<Feed> feed;
  std::string_view stream_type;            // empty: one JSON document at the end
  ErrorBody error_body = nullptr;          // of a failure before anything was sent
  std::vector<std::string> warnings = {};  // as a Generation's
};

// A request that an encoder answers, with one document.
struct EncodeReply {
  EncodeParams params;
  std::string inputs_field;  // what the client calls its inputs
  std::function<std::string(const EncodeResult&)> render;
  ErrorBody error_body = nullptr;
  std::vector<std::string> warnings = {};
};

using Reply = std::variant<HttpResponse, Generation, EncodeReply, FeedReply>;

}  // namespace mlxs
