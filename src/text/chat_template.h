// Chat templates: the model's Jinja template rendered by minijinja with the extensions that transformers has
// (raise_exception, strftime_now, tojson, pycompat string methods, loop controls).
// Immutable, any thread. A template that fails on an input throws kInvalidArgument with the template's own
// message.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

namespace mlxs {

class ChatTemplate {
 public:
  // source: Jinja text. bos/eos: token strings that templates may use. Throws kModelLoad with the line on a
  // syntax error.
  ChatTemplate(std::string_view source, std::string_view bos_token, std::string_view eos_token);
  ~ChatTemplate();

  // context_json: an object with "messages", optional "tools", "add_generation_prompt", and extra variables.
  // now: what strftime_now shows, in the local time zone.
  std::string render(std::string_view context_json,
                     std::chrono::system_clock::time_point now = std::chrono::system_clock::now()) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
