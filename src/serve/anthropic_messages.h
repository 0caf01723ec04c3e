// The messages of Anthropic's API and what their blocks say: text, thinking, calls of tools and their
// results. Pure; throws kInvalidArgument naming the field.
#pragma once

#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/tool_request.h"

namespace mlxs {

// A string, or blocks of text. Blocks follow each other as they are. ignored: gets the names of members that
// nothing reads.
std::string anthropic_text(const std::string& path, const OrderedJson& content,
                           std::vector<std::string>& ignored);

// Sets messages_json only where plain roles and texts do not say it all. system: the first message, if not
// empty.
ChatPrompt anthropic_messages(const OrderedJson& messages, const std::string& system,
                              std::vector<std::string>& ignored);

// Tools and tool_choice, as ToolRequest has them.
void read_anthropic_tools(ToolRequest& request, const OrderedJson& tools);
void read_anthropic_tool_choice(ToolRequest& request, const Json& choice);

}  // namespace mlxs
