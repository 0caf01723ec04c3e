// How much a request wants the model to think before it answers, in the words of the dialects. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mlxs {

// How much a model should think before it answers, where it can.
struct Thinking {
  std::optional<bool> on;
  std::string effort;  // "minimal", "low", "medium", "high"; empty: not given
};
// OpenAI's words, "none" among them. Throws kInvalidArgument.
Thinking read_effort(std::string_view field, std::string_view effort);

}  // namespace mlxs
