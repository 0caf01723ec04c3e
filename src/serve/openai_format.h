// How answers read in OpenAI's API: one JSON document at the end, or server-sent events as tokens come.
// Written as text, not through a JSON document: a stream does this for every token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/answer_reader.h"
#include "serve/http.h"

namespace mlxs {

enum class OpenAiApi : std::uint8_t { kChat, kCompletion };

struct AnswerInfo {
  OpenAiApi api = OpenAiApi::kChat;
  std::string id;  // "chatcmpl-…", "cmpl-…"
  std::int64_t created_unix_s = 0;
  std::string model;
  std::string fingerprint;
  std::size_t prompts = 1;
  std::size_t n = 1;           // choices of each
  bool include_usage = false;  // streams only
  AnswerShape shape;           // chat
  std::vector<std::string>
      echo;  // text completions: what stands before the answers to each prompt; empty: nothing
};

std::unique_ptr<AnswerFormat> make_openai_document(AnswerInfo info);
std::unique_ptr<AnswerFormat> make_openai_stream(AnswerInfo info);

// ---------------------------------------------------------------- parts of both

// Tokens of all choices; a prompt counts once, however many choices it has.
class Usage {
 public:
  void add(const GenerationStats& stats, bool first_choice, int reasoning_tokens);
  void append_to(std::string& out) const;  // {"prompt_tokens":…}

 private:
  int prompt_ = 0;
  int cached_ = 0;
  int completion_ = 0;
  int reasoning_ = 0;
};

// The log probabilities of a choice's tokens since the last take().
class ChoiceLogprobs {
 public:
  explicit ChoiceLogprobs(OpenAiApi api) : api_(api) {}
  void add(const Chunk& chunk);  // ignores chunks without
  // The "logprobs" value of what was added: null if nothing was.
  void take(std::string& out);

 private:
  void add_chat(const Chunk& chunk);
  void add_completion(const Chunk& chunk);

  OpenAiApi api_;
  bool empty_ = true;
  std::string content_;                                   // chat: the elements of "content"
  std::string tokens_, token_logprobs_, tops_, offsets_;  // completions: the elements of each array
  std::size_t characters_ = 0;                            // of the text before the next token
};

// The calls of one choice as OpenAI spells them, in a document or in a stream's deltas.
class ChoiceCalls {
 public:
  explicit ChoiceCalls(ToolFormat format) : format_(format) {}
  void add(const ToolEvent& event);  // a call, or a piece of its arguments
  // The delta of a call event: "tool_calls":[{…}], without braces around it.
  std::string delta(const ToolEvent& event);
  bool any() const { return !calls_.empty(); }
  void append_to(std::string& out) const;  // [{"id":…,"type":"function","function":{…}},…]

 private:
  struct Call {
    std::string id, name, arguments;
  };
  ToolFormat format_;
  std::vector<Call> calls_;
};

// An id that the format's template accepts when it comes back.
std::string new_call_id(ToolFormat format);

// "tool_calls" where calls ended it, "stop" or "length": the reason in OpenAI's words.
std::string_view openai_finish_reason(FinishReason reason, bool calls = false);

}  // namespace mlxs
