// The messages of a chat as OpenAI's clients send them. Pure; throws kInvalidArgument naming the field.
#pragma once

#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"

namespace mlxs {

// Sets messages_json only where plain roles and texts do not say it all: calls of tools, their results,
// thinking. ignored: gets the names of members that nothing reads.
ChatPrompt read_messages(const Json& messages, std::vector<std::string>& ignored);

}  // namespace mlxs
