#include "serve/anthropic_format.h"

#include <fmt/format.h>

#include <utility>

#include "serve/error_response.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

// Anthropic counts what came from the cache apart from the rest of the prompt.
std::string usage_json(const GenerationStats& stats) {
  return fmt::format(
      R"({{"input_tokens":{},"cache_creation_input_tokens":0,"cache_read_input_tokens":{},"output_tokens":{}}})",
      stats.prompt_tokens - stats.cached_prompt_tokens, stats.cached_prompt_tokens, stats.generated_tokens);
}

// The message; stop_reason is a JSON value.
std::string message_json(const AnthropicAnswerInfo& info, std::string_view content,
                         std::string_view stop_reason, const GenerationStats& stats) {
  return fmt::format(R"({{"id":"{}","type":"message","role":"assistant","model":{},"content":[{}],)"
                     R"("stop_reason":{},"stop_sequence":null,"usage":{}}})",
                     info.id, json_string(info.model), content, stop_reason, usage_json(stats));
}

std::string_view stop_reason_json(FinishReason reason) {
  return reason == FinishReason::kLength ? R"("max_tokens")" : R"("end_turn")";
}

void append_event(std::string& out, std::string_view type, std::string_view members) {
  fmt::format_to(std::back_inserter(out), "event: {0}\ndata: {{\"type\":\"{0}\"{1}}}\n\n", type, members);
}

class Document final : public AnswerFormat {
 public:
  explicit Document(AnthropicAnswerInfo info) : info_(std::move(info)) {}

  void add(std::size_t, const Chunk& chunk, std::string&) override {
    if (chunk.type != Chunk::Type::kDone) {
      text_ += chunk.text;
      return;
    }
    finish_ = chunk.finish;
    stats_ = chunk.stats;
  }

  void finish(std::string& out) override {
    const std::string content = R"({"type":"text","text":)" + json_string(text_) + "}";
    out += message_json(info_, content, stop_reason_json(finish_), stats_);
  }

  void fail(const Error&, std::string& out) override { out.clear(); }  // nothing was sent: the status tells

 private:
  AnthropicAnswerInfo info_;
  std::string text_;
  FinishReason finish_ = FinishReason::kStop;
  GenerationStats stats_;
};

class Stream final : public AnswerFormat {
 public:
  explicit Stream(AnthropicAnswerInfo info) : info_(std::move(info)) {}

  void add(std::size_t, const Chunk& chunk, std::string& out) override {
    if (!std::exchange(begun_, true)) begin(out);
    if (chunk.type == Chunk::Type::kDone) {
      append_event(out, "content_block_stop", R"(,"index":0)");
      append_event(out, "message_delta",
                   fmt::format(R"(,"delta":{{"stop_reason":{},"stop_sequence":null}},"usage":{})",
                               stop_reason_json(chunk.finish), usage_json(chunk.stats)));
      return;
    }
    if (chunk.text.empty()) return;  // half a character, or text held back
    delta_ = R"(,"index":0,"delta":{"type":"text_delta","text":)";
    append_json_string(delta_, chunk.text);
    delta_ += '}';
    append_event(out, "content_block_delta", delta_);
  }

  void finish(std::string& out) override { append_event(out, "message_stop", ""); }

  void fail(const Error& error, std::string& out) override {
    out += "event: error\ndata: " + anthropic_error_json(error) + "\n\n";
  }

 private:
  // What came from the cache is known at the end only; message_delta corrects these counts.
  void begin(std::string& out) {
    GenerationStats stats;
    stats.prompt_tokens = info_.prompt_tokens;
    append_event(out, "message_start", R"(,"message":)" + message_json(info_, "", "null", stats));
    append_event(out, "content_block_start", R"(,"index":0,"content_block":{"type":"text","text":""})");
  }

  AnthropicAnswerInfo info_;
  bool begun_ = false;
  std::string delta_;  // reused from token to token
};

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

std::unique_ptr<AnswerFormat> make_anthropic_document(AnthropicAnswerInfo info) {
  return std::make_unique<Document>(std::move(info));
}
std::unique_ptr<AnswerFormat> make_anthropic_stream(AnthropicAnswerInfo info) {
  return std::make_unique<Stream>(std::move(info));
}

std::string anthropic_error_json(const Error& error) {
  return fmt::format(R"({{"type":"error","error":{{"type":"{}","message":{}}}}})",
                     error_type(http_status(error.code())), json_string(error.full()));
}

}  // namespace mlxs
