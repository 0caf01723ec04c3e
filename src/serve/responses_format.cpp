#include "serve/responses_format.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "serve/error_response.h"
#include "serve/ids.h"
#include "serve/json_text.h"
#include "serve/openai_format.h"
#include "serve/responses_items.h"
#include "serve/token_logprob.h"

namespace mlxs {
namespace {

using Type = ResponsesItem::Type;

std::string new_item_id(Type type) {
  return random_id(type == Type::kMessage ? "msg_" : type == Type::kCall ? "fc_" : "rs_");
}

class Answer final : public AnswerFormat {
 public:
  explicit Answer(ResponsesAnswerInfo info) : info_(std::move(info)), reader_(info_.shape) {}

  void add(std::size_t, const Chunk& chunk, std::string& out) override {
    if (!std::exchange(begun_, true)) {
      const std::string response = response_json("in_progress", "null", "null");
      event(out, "response.created", R"("response":)" + response);
      event(out, "response.in_progress", R"("response":)" + response);
    }
    if (chunk.logprob && info_.logprobs) {
      if (!logprobs_.empty()) logprobs_ += ',';
      append_token_logprob(logprobs_, chunk);
    }
    if (info_.shape.plain()) {
      if (!chunk.text.empty()) write(out, Type::kMessage, chunk.text);
    } else {
      for (const ToolEvent& piece : reader_.read(chunk)) read(out, piece);
    }
    if (chunk.type != Chunk::Type::kDone) return;
    // An answer without a word is still a message.
    if (items_.empty()) open(out, {.type = Type::kMessage});
    cut_ = chunk.finish == FinishReason::kLength;
    stats_ = chunk.stats;
    close(out, cut_ ? "incomplete" : "completed");
  }

  void finish(std::string& out) override {
    const std::string_view status = cut_ ? "incomplete" : "completed";
    std::string response = response_json(status, "null", cut_ ? R"({"reason":"max_output_tokens"})" : "null");
    if (info_.on_done) info_.on_done(response, assistant_message(items_));
    if (info_.stream) {
      event(out, fmt::format("response.{}", status), R"("response":)" + response);
    } else {
      out += response;
    }
  }

  void fail(const Error& error, std::string& out) override {
    const std::string what =
        fmt::format(R"({{"code":"server_error","message":{}}})", json_string(error.full()));
    event(out, "response.failed", R"("response":)" + response_json("failed", what, "null"));
  }

 private:
  // Nothing where the response is one document.
  void event(std::string& out, std::string_view type, std::string_view members) {
    if (!info_.stream) return;
    fmt::format_to(std::back_inserter(out),
                   "event: {0}\ndata: {{\"type\":\"{0}\",\"sequence_number\":{1},{2}}}\n\n", type,
                   sequence_++, members);
  }

  std::string place() const {
    return fmt::format(R"("item_id":"{}","output_index":{})", items_.back().id, items_.size() - 1);
  }

  void read(std::string& out, const ToolEvent& piece) {
    switch (piece.type) {
      case ToolEvent::Type::kText:
        write(out, Type::kMessage, piece.text);
        break;
      case ToolEvent::Type::kReasoning:
        write(out, Type::kReasoning, piece.text);
        break;
      case ToolEvent::Type::kCall:
        close(out, "completed");
        open(out, {.type = Type::kCall, .call_id = new_call_id(info_.shape.tool_format), .name = piece.text});
        break;
      case ToolEvent::Type::kArguments:
        items_.back().text += piece.text;
        event(out, "response.function_call_arguments.delta",
              fmt::format(R"({},"delta":{})", place(), json_string(piece.text)));
        break;
    }
  }

  // The next piece of a message or of the thinking.
  void write(std::string& out, Type type, std::string_view text) {
    if (!open_ || items_.back().type != type) {
      close(out, "completed");
      open(out, {.type = type});
    }
    ResponsesItem& item = items_.back();
    item.text += text;
    const std::string logprobs = std::exchange(logprobs_, {});
    if (type == Type::kReasoning) {
      event(out, "response.reasoning_text.delta",
            fmt::format(R"({},"content_index":0,"delta":{})", place(), json_string(text)));
      return;
    }
    if (!logprobs.empty()) item.logprobs += (item.logprobs.empty() ? "" : ",") + logprobs;
    event(out, "response.output_text.delta",
          fmt::format(R"({},"content_index":0,"delta":{},"logprobs":[{}])", place(), json_string(text),
                      logprobs));
  }

  void open(std::string& out, ResponsesItem item) {
    item.id = new_item_id(item.type);
    items_.push_back(std::move(item));
    open_ = true;
    const ResponsesItem& now = items_.back();
    event(out, "response.output_item.added",
          fmt::format(R"("output_index":{},"item":{})", items_.size() - 1, now.json("in_progress")));
    if (now.type != Type::kCall) {
      event(out, "response.content_part.added",
            fmt::format(R"({},"content_index":0,"part":{})", place(), now.part_json(true)));
    }
  }

  // Ends the item that is being written, if one is.
  void close(std::string& out, std::string_view status) {
    if (!std::exchange(open_, false)) return;
    const ResponsesItem& item = items_.back();
    if (item.type == Type::kCall) {
      event(out, "response.function_call_arguments.done",
            fmt::format(R"({},"name":{},"arguments":{})", place(), json_string(item.name),
                        json_string(item.text)));
    } else {
      const bool message = item.type == Type::kMessage;
      event(out, message ? "response.output_text.done" : "response.reasoning_text.done",
            fmt::format(R"({},"content_index":0,"text":{}{})", place(), json_string(item.text),
                        message ? fmt::format(R"(,"logprobs":[{}])", item.logprobs) : ""));
      event(out, "response.content_part.done",
            fmt::format(R"({},"content_index":0,"part":{})", place(), item.part_json(false)));
    }
    status_ = status;
    event(out, "response.output_item.done",
          fmt::format(R"("output_index":{},"item":{})", items_.size() - 1, item.json(status)));
  }

  std::string response_json(std::string_view status, std::string_view error,
                            std::string_view incomplete) const {
    std::string output;
    for (const ResponsesItem& item : items_) {
      if (!output.empty()) output += ',';
      const bool last = &item == &items_.back();
      output += item.json(last ? std::string_view(status_) : "completed");
    }
    std::string usage = "null";
    if (stats_) {
      usage = fmt::format(
          R"({{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{},"cache_write_tokens":0}},"output_tokens":{},)"
          R"("output_tokens_details":{{"reasoning_tokens":{}}},"total_tokens":{}}})",
          stats_->prompt_tokens, stats_->cached_prompt_tokens, stats_->generated_tokens,
          reader_.reasoning_tokens(), stats_->prompt_tokens + stats_->generated_tokens);
    }
    std::string completed = "null";
    if (status == "completed") {
      completed = fmt::format("{}", std::chrono::duration_cast<std::chrono::seconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
    }
    return fmt::format(
        R"({{"id":"{}","object":"response","created_at":{},"completed_at":{},"status":"{}","error":{},)"
        R"("incomplete_details":{},"model":{},{},"output":[{}],"usage":{}}})",
        info_.id, info_.created_unix_s, completed, status, error, incomplete, json_string(info_.model),
        info_.echo, output, usage);
  }

  ResponsesAnswerInfo info_;
  AnswerReader reader_;
  std::vector<ResponsesItem> items_;
  bool begun_ = false, open_ = false, cut_ = false;
  std::string status_ = "in_progress";  // of the last item
  std::string logprobs_;                // of tokens whose text did not come yet
  std::optional<GenerationStats> stats_;
  int sequence_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_responses_answer(ResponsesAnswerInfo info) {
  return std::make_unique<Answer>(std::move(info));
}

}  // namespace mlxs
