#include "serve/anthropic_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "serve/error_response.h"
#include "serve/ids.h"
#include "serve/json_text.h"
#include "serve/openai_format.h"

namespace mlxs {
namespace {

// Anthropic counts what came from the cache, and what was put there because the client marked it, apart from
// the rest of the prompt.
std::string usage_json(const GenerationStats& stats, const CacheWrites& writes) {
  const int rest = stats.prompt_tokens - stats.cached_prompt_tokens - writes.total();
  return fmt::format(
      R"({{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"cache_creation":)"
      R"({{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"output_tokens":{}}})",
      rest, writes.total(), stats.cached_prompt_tokens, writes.short_lived, writes.long_lived,
      stats.generated_tokens);
}

// "stop_reason":…,"stop_sequence":…
struct Stop {
  FinishReason finish = FinishReason::kStop;
  std::string sequence;  // of the client's, that ended it
  bool calls = false;

  std::string json() const {
    const bool found = finish != FinishReason::kLength && !calls && !sequence.empty();
    const std::string_view reason = finish == FinishReason::kLength ? "max_tokens"
                                    : calls                         ? "tool_use"
                                    : found                         ? "stop_sequence"
                                                                    : "end_turn";
    return fmt::format(R"("stop_reason":"{}","stop_sequence":{})", reason,
                       found ? json_string(sequence) : "null");
  }
};

// The message; stop: as above.
std::string message_json(const AnthropicAnswerInfo& info, std::string_view content, std::string_view stop,
                         const GenerationStats& stats, const CacheWrites& writes) {
  return fmt::format(
      R"({{"id":"{}","type":"message","role":"assistant","model":{},"content":[{}],{},"usage":{}}})", info.id,
      json_string(info.model), content, stop, usage_json(stats, writes));
}

// One block of the content while it is written.
struct Block {
  enum class Type : std::uint8_t { kText, kThinking, kCall } type = Type::kText;
  std::string text;      // of the answer or the thinking; a call's input as JSON
  std::string id, name;  // calls

  // begun: as it is at its start, empty.
  std::string json(bool begun) const {
    if (type == Type::kText) return R"({"type":"text","text":)" + json_string(begun ? "" : text) + "}";
    if (type == Type::kThinking) {
      return R"({"type":"thinking","thinking":)" + json_string(begun ? "" : text) + R"(,"signature":""})";
    }
    const bool whole = !begun && nlohmann::json::accept(text);  // else it was cut short
    return fmt::format(R"({{"type":"tool_use","id":"{}","name":{},"input":{}}})", id, json_string(name),
                       whole ? text : "{}");
  }
};

class Answer final : public AnswerFormat {
 public:
  explicit Answer(AnthropicAnswerInfo info) : info_(std::move(info)), reader_(info_.shape) {}

  void add(std::size_t, const Chunk& chunk, std::string& out) override {
    if (!std::exchange(begun_, true)) begin(out);
    if (info_.shape.plain()) {
      if (!chunk.text.empty()) write(out, Block::Type::kText, chunk.text);
    } else {
      for (const ToolEvent& event : reader_.read(chunk)) read(out, event);
    }
    if (chunk.type != Chunk::Type::kDone) return;
    if (blocks_.empty()) open(out, {});  // an answer without a word still has a block
    close(out);
    stop_.finish = chunk.finish;
    if (std::ranges::find(info_.stops, chunk.stop) != info_.stops.end()) stop_.sequence = chunk.stop;
    stats_ = chunk.stats;
  }

  void finish(std::string& out) override {
    const CacheWrites writes = cache_writes(info_.beginnings, stats_.cached_prompt_tokens);
    if (info_.stream) {
      event(out, "message_delta",
            fmt::format(R"(,"delta":{{{}}},"usage":{})", stop_.json(), usage_json(stats_, writes)));
      event(out, "message_stop", "");
      return;
    }
    std::string content;
    for (const Block& block : blocks_) content += (content.empty() ? "" : ",") + block.json(false);
    out += message_json(info_, content, stop_.json(), stats_, writes);
  }

  void fail(const Error& error, std::string& out) override {
    if (info_.stream) out += "event: error\ndata: " + anthropic_error_json(error) + "\n\n";
  }

 private:
  // Nothing where the message is one document.
  void event(std::string& out, std::string_view type, std::string_view members) {
    if (!info_.stream) return;
    fmt::format_to(std::back_inserter(out), "event: {0}\ndata: {{\"type\":\"{0}\"{1}}}\n\n", type, members);
  }

  // What came from the cache is known at the end only; message_delta corrects these counts.
  void begin(std::string& out) {
    GenerationStats stats;
    stats.prompt_tokens = info_.prompt_tokens;
    event(out, "message_start",
          R"(,"message":)" +
              message_json(info_, "", R"("stop_reason":null,"stop_sequence":null)", stats, CacheWrites()));
  }

  void read(std::string& out, const ToolEvent& piece) {
    switch (piece.type) {
      case ToolEvent::Type::kText:
        write(out, Block::Type::kText, piece.text);
        break;
      case ToolEvent::Type::kReasoning:
        write(out, Block::Type::kThinking, piece.text);
        break;
      case ToolEvent::Type::kCall:
        close(out);
        stop_.calls = true;
        open(out, {.type = Block::Type::kCall, .id = call_id(), .name = piece.text});
        break;
      case ToolEvent::Type::kArguments:
        blocks_.back().text += piece.text;
        delta(out, R"("type":"input_json_delta","partial_json":)", piece.text);
        break;
    }
  }

  // Mistral's templates insist on an id of their own length.
  std::string call_id() const {
    return info_.shape.tool_format == ToolFormat::kMistral ? new_call_id(ToolFormat::kMistral)
                                                           : random_id("toolu_");
  }

  void write(std::string& out, Block::Type type, std::string_view text) {
    if (!open_ || blocks_.back().type != type) {
      close(out);
      open(out, {.type = type});
    }
    if (!info_.stream) {
      blocks_.back().text += text;
    } else if (type == Block::Type::kText) {
      delta(out, R"("type":"text_delta","text":)", text);
    } else {
      delta(out, R"("type":"thinking_delta","thinking":)", text);
    }
  }

  void delta(std::string& out, std::string_view head, std::string_view text) {
    if (!info_.stream) return;
    delta_.clear();
    fmt::format_to(std::back_inserter(delta_), R"(,"index":{},"delta":{{{})", blocks_.size() - 1, head);
    append_json_string(delta_, text);
    delta_ += '}';
    event(out, "content_block_delta", delta_);
  }

  void open(std::string& out, Block block) {
    blocks_.push_back(std::move(block));
    open_ = true;
    event(out, "content_block_start",
          fmt::format(R"(,"index":{},"content_block":{})", blocks_.size() - 1, blocks_.back().json(true)));
  }

  void close(std::string& out) {
    if (std::exchange(open_, false))
      event(out, "content_block_stop", fmt::format(R"(,"index":{})", blocks_.size() - 1));
  }

  AnthropicAnswerInfo info_;
  AnswerReader reader_;
  std::vector<Block> blocks_;
  bool begun_ = false, open_ = false;
  Stop stop_;
  GenerationStats stats_;
  std::string delta_;  // reused from token to token
};

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
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

std::unique_ptr<AnswerFormat> make_anthropic_answer(AnthropicAnswerInfo info) {
  return std::make_unique<Answer>(std::move(info));
}

std::string anthropic_error_json(const Error& error) {
  // The package goes on without threads when it reads this.
  const std::string_view details =
      error.field() == "thread"
          ? R"(,"details":{"error_code":"thread_unsupported_request","unsupported":["thread"]})"
          : "";
  return fmt::format(R"({{"type":"error","error":{{"type":"{}","message":{}{}}}}})",
                     error_type(http_status(error.code())), json_string(error.full()), details);
}

}  // namespace mlxs
