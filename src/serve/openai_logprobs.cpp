#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "serve/json_text.h"
#include "serve/openai_format.h"
#include "serve/token_logprob.h"

namespace mlxs {
namespace {

void append_separator(std::string& list) {
  if (!list.empty()) list += ',';
}

// A token in text completions, where it is a key and has no bytes beside it: bytes that are not UTF-8 are
// spelled out.
std::string token_key(std::string_view bytes) {
  if (valid_utf8(bytes) == bytes) return std::string(bytes);
  std::string key = "bytes:";
  for (const char c : bytes)
    fmt::format_to(std::back_inserter(key), "\\x{:02x}", static_cast<unsigned char>(c));
  return key;
}

std::size_t count_characters(std::string_view bytes) {
  return static_cast<std::size_t>(
      std::ranges::count_if(bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

void ChoiceLogprobs::add(const Chunk& chunk) {
  if (!chunk.logprob) return;
  empty_ = false;
  api_ == OpenAiApi::kChat ? add_chat(chunk) : add_completion(chunk);
}

void ChoiceLogprobs::add_chat(const Chunk& chunk) {
  append_separator(content_);
  append_token_logprob(content_, chunk);
}

void ChoiceLogprobs::add_completion(const Chunk& chunk) {
  for (std::string* list : {&tokens_, &token_logprobs_, &tops_, &offsets_}) append_separator(*list);
  append_json_string(tokens_, token_key(chunk.token_bytes));
  append_logprob(token_logprobs_, *chunk.logprob);
  tops_ += '{';
  for (std::size_t i = 0; i < chunk.top_logprobs.size(); ++i) {
    if (i > 0) tops_ += ',';
    append_json_string(tops_, token_key(chunk.top_logprobs[i].bytes));
    tops_ += ':';
    append_logprob(tops_, chunk.top_logprobs[i].logprob);
  }
  tops_ += '}';
  fmt::format_to(std::back_inserter(offsets_), "{}", characters_);
  characters_ += count_characters(chunk.token_bytes);
}

void ChoiceLogprobs::take(std::string& out) {
  if (std::exchange(empty_, true)) {
    out += "null";
  } else if (api_ == OpenAiApi::kChat) {
    fmt::format_to(std::back_inserter(out), R"({{"content":[{}],"refusal":null}})", content_);
  } else {
    fmt::format_to(std::back_inserter(out),
                   R"({{"tokens":[{}],"token_logprobs":[{}],"top_logprobs":[{}],"text_offset":[{}]}})",
                   tokens_, token_logprobs_, tops_, offsets_);
  }
  for (std::string* list : {&content_, &tokens_, &token_logprobs_, &tops_, &offsets_}) list->clear();
}

}  // namespace mlxs
