// How answers read in Anthropic's messages API: one JSON message at the end, or its typed events as tokens
// come. Written as text, not through a JSON document: a stream does this for every token.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/answer_reader.h"
#include "serve/anthropic_cache.h"
#include "serve/http.h"

namespace mlxs {

struct AnthropicAnswerInfo {
  std::string id;  // "msg_…"
  std::string model;
  int prompt_tokens = 0;
  std::vector<CachedBeginning> beginnings;  // of the prompt, that its client marked
  std::vector<std::string> stops;           // that the client asked for
  bool stream = false;
  AnswerShape shape;
};

std::unique_ptr<AnswerFormat> make_anthropic_answer(AnthropicAnswerInfo info);

// {"type":"error","error":{"type":…,"message":…}}
std::string anthropic_error_json(const Error& error);

}  // namespace mlxs
