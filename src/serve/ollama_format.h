// How answers read in Ollama's APIs: a JSON line for every piece of text, or one object at the end; the last
// one has counts and times. Written as text, not through a JSON document: a stream does this for every token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "serve/answer_reader.h"
#include "serve/http.h"
#include "serve/ollama_request.h"

namespace mlxs {

struct OllamaAnswerInfo {
  OllamaApi api = OllamaApi::kChat;
  std::string model;  // as the client named it
  bool stream = true;
  AnswerShape shape;
  double load_seconds = 0;  // the request waited so long for its model
};

std::unique_ptr<AnswerFormat> make_ollama_answer(OllamaAnswerInfo info);

// The answer where nothing is generated: reason "load" or "unload".
std::string ollama_empty_answer(const OllamaAnswerInfo& info, std::string_view reason);

// {"error":…}
std::string ollama_error_json(const Error& error);

// RFC 3339 in UTC with nanoseconds, as Ollama writes times.
std::string rfc3339(std::int64_t unix_ns);
std::int64_t unix_nanoseconds();  // now

}  // namespace mlxs
