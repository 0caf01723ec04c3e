#include "serve/ollama_format.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "serve/ids.h"
#include "serve/json_text.h"
#include "serve/token_logprob.h"

namespace mlxs {
namespace {

std::int64_t to_ns(double seconds) { return std::llround(seconds * 1e9); }

// {"model":…,"created_at":…, — the start of every object.
std::string open_object(const OllamaAnswerInfo& info) {
  return fmt::format(R"({{"model":{},"created_at":"{}",)", json_string(info.model),
                     rfc3339(unix_nanoseconds()));
}

// prompt_eval is the time from the first step to the first token; waiting for a place is in the total only.
std::string last_members(FinishReason finish, const GenerationStats& stats, double load_seconds) {
  return fmt::format(
      R"("done":true,"done_reason":"{}","total_duration":{},"load_duration":{},"prompt_eval_count":{},)"
      R"("prompt_eval_duration":{},"eval_count":{},"eval_duration":{}}})",
      finish == FinishReason::kLength ? "length" : "stop", to_ns(load_seconds + stats.total_seconds),
      to_ns(load_seconds), stats.prompt_tokens, to_ns(stats.ttft_seconds - stats.queue_seconds),
      stats.generated_tokens, to_ns(stats.total_seconds - stats.ttft_seconds));
}

class Answer final : public AnswerFormat {
 public:
  explicit Answer(OllamaAnswerInfo info) : info_(std::move(info)), reader_(info_.shape) {}

  std::string_view stream_type() const override { return kJsonLines; }

  void add(std::size_t, const Chunk& chunk, std::string& out) override {
    const bool done = chunk.type == Chunk::Type::kDone;
    if (chunk.logprob) add_logprob(chunk);
    if (info_.shape.plain()) {
      text_ += chunk.text;
    } else {
      for (const ToolEvent& event : reader_.read(chunk)) read(event);
    }
    if (done) {
      end_call();
      last_ = last_members(chunk.finish, chunk.stats, info_.load_seconds);
    }
    if (info_.stream) flush(out);
  }

  void finish(std::string& out) override {
    out += open_object(info_);
    append_body(out);
    out += ',';
    out += last_;
    if (info_.stream) out += '\n';
  }

  void fail(const Error& error, std::string& out) override {
    if (info_.stream) out += ollama_error_json(error) + "\n";
  }

 private:
  // Calls come whole, with their arguments as an object: a call is over when something else comes.
  void read(const ToolEvent& event) {
    switch (event.type) {
      case ToolEvent::Type::kText:
        end_call();
        text_ += event.text;
        break;
      case ToolEvent::Type::kReasoning:
        thinking_ += event.text;
        break;
      case ToolEvent::Type::kCall:
        end_call();
        name_ = event.text;
        break;
      case ToolEvent::Type::kArguments:
        arguments_ += event.text;
        break;
    }
  }

  void end_call() {
    if (!name_) return;
    const std::string name = *std::exchange(name_, std::nullopt);
    const std::string arguments = std::exchange(arguments_, {});
    if (!nlohmann::json::parse(arguments, nullptr, false).is_object()) {
      text_ += name + arguments;  // cut short: what came of it is text
      return;
    }
    fmt::format_to(std::back_inserter(calls_),
                   R"({}{{"id":"{}","function":{{"index":{},"name":{},"arguments":{}}}}})",
                   calls_.empty() ? "" : ",", random_id("call_"), count_++, json_string(name), arguments);
  }

  void add_logprob(const Chunk& chunk) {
    if (!logprobs_.empty()) logprobs_ += ',';
    append_token_logprob(logprobs_, chunk);
  }

  // "message":{…} or "response":…, and the probabilities, of what was not sent yet.
  void append_body(std::string& out) {
    const bool chat = info_.api == OllamaApi::kChat;
    out += chat ? R"("message":{"role":"assistant","content":)" : R"("response":)";
    append_json_string(out, text_);
    if (!thinking_.empty()) out += R"(,"thinking":)" + json_string(thinking_);
    if (!calls_.empty()) out += R"(,"tool_calls":[)" + calls_ + ']';
    if (chat) out += '}';
    if (!logprobs_.empty()) out += R"(,"logprobs":[)" + logprobs_ + ']';
    text_.clear();
    thinking_.clear();
    calls_.clear();
    logprobs_.clear();
  }

  void flush(std::string& out) {
    if (text_.empty() && thinking_.empty() && calls_.empty() && logprobs_.empty()) return;
    out += open_object(info_);
    append_body(out);
    out += ",\"done\":false}\n";
  }

  OllamaAnswerInfo info_;
  AnswerReader reader_;
  std::string text_, thinking_, calls_, logprobs_;  // not sent yet; calls and probabilities as JSON
  std::optional<std::string> name_;                 // of the call that is being read
  std::string arguments_;
  int count_ = 0;     // calls
  std::string last_;  // members of the last object
};

}  // namespace

std::unique_ptr<AnswerFormat> make_ollama_answer(OllamaAnswerInfo info) {
  return std::make_unique<Answer>(std::move(info));
}

std::string ollama_empty_answer(const OllamaAnswerInfo& info, std::string_view reason) {
  const std::string_view body =
      info.api == OllamaApi::kChat ? R"("message":{"role":"assistant","content":""})" : R"("response":"")";
  return fmt::format("{}{},\"done\":true,\"done_reason\":\"{}\"}}", open_object(info), body, reason);
}

std::string ollama_error_json(const Error& error) {
  return fmt::format(R"({{"error":{}}})", json_string(error.full()));
}

std::string rfc3339(std::int64_t unix_ns) {
  constexpr std::int64_t kBillion = 1'000'000'000;
  const std::time_t seconds = static_cast<std::time_t>(unix_ns / kBillion);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, unix_ns % kBillion);
}

std::int64_t unix_nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace mlxs
