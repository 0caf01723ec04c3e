// From a prompt as it was sent to the tokens that the model reads. Any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "mlxs/engine.h"

namespace mlxs {

class LoadedModel;

// The chat template's text; kInvalidArgument: the model has none.
std::string render(const LoadedModel& model, const ChatPrompt& prompt);

// At least one token, all in the vocabulary; kInvalidArgument otherwise.
std::vector<TokenId> encode(const LoadedModel& model, const Prompt& prompt);

// How many of the prompt's tokens its system messages and tools are, as the template writes them; of a prompt
// without a template: all.
int system_tokens(const LoadedModel& model, const Prompt& prompt, std::span<const TokenId> tokens);

// How many tokens the answer may have; throws kContextOverflow with both numbers.
int answer_limit(const LoadedModel& model, int prompt_tokens, std::optional<int> asked);

}  // namespace mlxs
