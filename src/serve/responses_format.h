// How answers read in OpenAI's responses API: one response object at the end, or its typed events as tokens
// come, numbered in order. Written as text, not through a JSON document: a stream does this for every token.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "serve/answer_reader.h"
#include "serve/http.h"
#include "serve/tool_request.h"

namespace mlxs {

struct ResponsesAnswerInfo {
  std::string id;  // "resp_…"
  std::int64_t created_unix_s = 0;
  std::string model;
  std::string echo;  // members that repeat the request, without braces
  bool stream = false;
  bool logprobs = false;
  AnswerShape shape;
  // Called with the whole response and the message it adds to the conversation; may be empty.
  std::function<void(const std::string& json, const OrderedJson& message)> on_done;
};

std::unique_ptr<AnswerFormat> make_responses_answer(ResponsesAnswerInfo info);

}  // namespace mlxs
