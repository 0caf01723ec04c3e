#include "serve/openai_values.h"

#include <fmt/format.h>

#include <charconv>

#include "serve/token_list.h"

namespace mlxs {

std::vector<std::string> read_stop(const Json& value) {
  std::vector<std::string> stop;
  if (value.is_string()) {
    stop.push_back(value.get<std::string>());
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i)
      stop.push_back(as_string(fmt::format("stop[{}]", i), value[i]));
  } else {
    refuse_field("stop", "stop has the wrong type", "stop must be a string or an array of strings");
  }
  for (const std::string& text : stop) {
    if (text.empty()) refuse_field("stop", "stop has an empty string", "every stop string needs a character");
  }
  return stop;
}

std::vector<std::pair<std::int32_t, float>> read_logit_bias(const Json& value) {
  std::vector<std::pair<std::int32_t, float>> biases;
  for (const auto& [key, bias] : value.items()) {
    const std::string path = fmt::format("logit_bias.{}", key);
    std::int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0) {
      refuse_field("logit_bias", fmt::format("logit_bias has the key '{}'", key),
                   "keys must be token ids as decimal strings");
    }
    check_value({.name = {}, .type = FieldType::kNumber, .minimum = -100, .maximum = 100}, path, bias);
    biases.emplace_back(token, bias.get<float>());
  }
  return biases;
}

std::vector<Prompt> read_prompts(const Json& value) {
  std::vector<Prompt> prompts;
  if (value.is_string()) {
    prompts.emplace_back(value.get<std::string>());
    return prompts;
  }
  if (!value.is_array() || value.empty()) {
    refuse_field("prompt", value.is_array() ? "prompt is empty" : "prompt has the wrong type",
                 "prompt must be a string, an array of strings, an array of token ids, or an array of those");
  }
  if (value[0].is_number()) {
    prompts.emplace_back(TokenPrompt{read_tokens("prompt", value)});
    return prompts;
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("prompt[{}]", i);
    if (value[0].is_array()) {
      check_value({.name = {}, .type = FieldType::kArray}, path, value[i]);
      prompts.emplace_back(TokenPrompt{read_tokens(path, value[i])});
    } else {
      prompts.emplace_back(as_string(path, value[i]));
    }
  }
  return prompts;
}

}  // namespace mlxs
