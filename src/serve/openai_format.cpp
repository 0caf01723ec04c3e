#include "serve/openai_format.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "serve/error_response.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

// {"id":…,"object":…,"created":…,"model":…,"system_fingerprint":…,"choices":[ — the same for every event of a
// stream.
std::string open_object(const AnswerInfo& info, std::string_view object) {
  return fmt::format(
      R"({{"id":"{}","object":"{}","created":{},"model":{},"system_fingerprint":"{}","choices":[)", info.id,
      object, info.created_unix_s, json_string(info.model), info.fingerprint);
}

class Document final : public AnswerFormat {
 public:
  explicit Document(AnswerInfo info)
      : info_(std::move(info)),
        choices_(info_.prompts * info_.n, Choice{ChoiceLogprobs(info_.api), AnswerReader(info_.shape),
                                                 ChoiceCalls(info_.shape.tool_format)}) {
    for (std::size_t i = 0; i < choices_.size() && !info_.echo.empty(); ++i)
      choices_[i].text = info_.echo[i / info_.n];
  }

  void add(std::size_t index, const Chunk& chunk, std::string&) override {
    Choice& choice = choices_[index];
    if (info_.shape.plain()) {
      choice.text += chunk.text;
    } else {
      for (const ToolEvent& event : choice.reader.read(chunk)) {
        if (event.type == ToolEvent::Type::kText) {
          choice.text += event.text;
        } else if (event.type == ToolEvent::Type::kReasoning) {
          choice.reasoning += event.text;
        } else {
          choice.calls.add(event);
        }
      }
    }
    if (chunk.type == Chunk::Type::kDone) {
      choice.finish = openai_finish_reason(chunk.finish, choice.calls.any());
      usage_.add(chunk.stats, index % info_.n == 0, choice.reader.reasoning_tokens());
    } else {
      choice.logprobs.add(chunk);
    }
  }

  void finish(std::string& out) override {
    const bool chat = info_.api == OpenAiApi::kChat;
    out += open_object(info_, chat ? "chat.completion" : "text_completion");
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      Choice& choice = choices_[i];
      fmt::format_to(std::back_inserter(out), R"({}{{"index":{},)", i == 0 ? "" : ",", i);
      out += chat ? R"("message":{"role":"assistant","content":)" : R"("text":)";
      if (choice.calls.any() && choice.text.empty()) {
        out += "null";
      } else {
        append_json_string(out, choice.text);
      }
      if (!choice.reasoning.empty()) out += R"(,"reasoning_content":)" + json_string(choice.reasoning);
      if (choice.calls.any()) {
        out += R"(,"tool_calls":)";
        choice.calls.append_to(out);
      }
      out += chat ? R"(,"refusal":null},"logprobs":)" : R"(,"logprobs":)";
      choice.logprobs.take(out);
      fmt::format_to(std::back_inserter(out), R"(,"finish_reason":"{}"}})", choice.finish);
    }
    out += R"(],"usage":)";
    usage_.append_to(out);
    out += '}';
  }

  void fail(const Error&, std::string& out) override { out.clear(); }  // nothing was sent: the status tells

 private:
  struct Choice {
    ChoiceLogprobs logprobs;
    AnswerReader reader;
    ChoiceCalls calls;
    std::string text = {}, reasoning = {};
    std::string_view finish = {};
  };

  AnswerInfo info_;
  std::vector<Choice> choices_;
  Usage usage_;
};

class Stream final : public AnswerFormat {
 public:
  explicit Stream(AnswerInfo info)
      : info_(std::move(info)),
        head_("data: " + open_object(info_, info_.api == OpenAiApi::kChat ? "chat.completion.chunk"
                                                                          : "text_completion")),
        choices_(info_.prompts * info_.n, Choice{ChoiceLogprobs(info_.api), AnswerReader(info_.shape),
                                                 ChoiceCalls(info_.shape.tool_format)}) {}

  void add(std::size_t index, const Chunk& chunk, std::string& out) override {
    Choice& choice = choices_[index];
    const bool chat = info_.api == OpenAiApi::kChat;
    if (!std::exchange(choice.begun, true)) {
      if (chat)
        write(out, index,
              R"("delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)");
      if (!info_.echo.empty()) write_text(out, index, info_.echo[index / info_.n]);
    }
    choice.logprobs.add(chunk);  // a done chunk has none
    std::vector<ToolEvent> events;
    if (!info_.shape.plain()) events = choice.reader.read(chunk);
    for (const ToolEvent& event : events) write_event(out, index, event);
    if (chunk.type == Chunk::Type::kDone) {
      usage_.add(chunk.stats, index % info_.n == 0, choice.reader.reasoning_tokens());
      write(out, index,
            fmt::format(R"({},"logprobs":null,"finish_reason":"{}")", chat ? R"("delta":{})" : R"("text":"")",
                        openai_finish_reason(chunk.finish, choice.calls.any())));
      return;
    }
    // The probability of half a character, or of text held back, does not wait for it.
    const std::string_view text = info_.shape.plain() ? std::string_view(chunk.text) : std::string_view();
    if (!text.empty() || (events.empty() && chunk.logprob)) write_text(out, index, text);
  }

  void finish(std::string& out) override {
    if (info_.include_usage) {
      out += head_;
      out += R"(],"usage":)";
      usage_.append_to(out);
      out += "}\n\n";
    }
    out += "data: [DONE]\n\n";
  }

  void fail(const Error& error, std::string& out) override { out += "data: " + error_json(error) + "\n\n"; }

 private:
  struct Choice {
    ChoiceLogprobs logprobs;
    AnswerReader reader;
    ChoiceCalls calls;
    bool begun = false;
  };

  void write_event(std::string& out, std::size_t index, const ToolEvent& event) {
    if (event.type == ToolEvent::Type::kText) {
      write_text(out, index, event.text);
      return;
    }
    const std::string delta = event.type == ToolEvent::Type::kReasoning
                                  ? R"("reasoning_content":)" + json_string(event.text)
                                  : choices_[index].calls.delta(event);
    write(out, index, fmt::format(R"("delta":{{{}}},"logprobs":null,"finish_reason":null)", delta));
  }

  void write_text(std::string& out, std::size_t index, std::string_view text) {
    const bool chat = info_.api == OpenAiApi::kChat;
    body_ = chat ? R"("delta":{"content":)" : R"("text":)";
    append_json_string(body_, text);
    body_ += chat ? R"(},"logprobs":)" : R"(,"logprobs":)";
    choices_[index].logprobs.take(body_);
    body_ += R"(,"finish_reason":null)";
    write(out, index, body_);
  }

  // One event about one choice; `body` is the choice without its index.
  void write(std::string& out, std::size_t index, std::string_view body) {
    out += head_;
    fmt::format_to(std::back_inserter(out), R"({{"index":{},)", index);
    out += body;
    out += info_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
  }

  AnswerInfo info_;
  std::string head_;
  std::vector<Choice> choices_;
  Usage usage_;
  std::string body_;  // reused from token to token
};

}  // namespace

void Usage::add(const GenerationStats& stats, bool first_choice, int reasoning_tokens) {
  reasoning_ += reasoning_tokens;
  completion_ += stats.generated_tokens;
  if (!first_choice) return;
  prompt_ += stats.prompt_tokens;
  cached_ += stats.cached_prompt_tokens;
}

void Usage::append_to(std::string& out) const {
  fmt::format_to(
      std::back_inserter(out),
      R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}},"completion_tokens_details":{{"reasoning_tokens":{}}}}})",
      prompt_, completion_, prompt_ + completion_, cached_, reasoning_);
}

std::string_view openai_finish_reason(FinishReason reason, bool calls) {
  if (calls && reason == FinishReason::kStop) return "tool_calls";
  return reason == FinishReason::kLength ? "length" : "stop";
}

std::unique_ptr<AnswerFormat> make_openai_document(AnswerInfo info) {
  return std::make_unique<Document>(std::move(info));
}
std::unique_ptr<AnswerFormat> make_openai_stream(AnswerInfo info) {
  return std::make_unique<Stream>(std::move(info));
}

}  // namespace mlxs
