// Tools as OpenAI's chat clients ask for them: `tools`, `tool_choice`, and the messages that carry calls and
// results. Pure: JSON in, values out; throws kInvalidArgument naming the field.
#pragma once

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/tool_calls.h"

namespace mlxs {

using OrderedJson = nlohmann::ordered_json;  // templates and grammars follow the order that the client gave

struct ToolRequest {
  enum class Choice : std::uint8_t { kAuto, kNone, kRequired, kNamed };
  struct Tool {
    std::string name;
    OrderedJson parameters;  // a JSON Schema
    bool strict = false;
  };
  std::vector<Tool> tools;
  std::string tools_json;  // the array as the client sent it
  Choice choice = Choice::kAuto;
  std::string named;                 // kNamed
  std::vector<std::string> allowed;  // the tools that may be called; empty: all
  bool parallel = true;

  bool active() const { return !tools.empty() && choice != Choice::kNone; }
  bool may_call(const Tool& tool) const {
    if (choice == Choice::kNamed) return tool.name == named;
    return allowed.empty() || std::ranges::find(allowed, tool.name) != allowed.end();
  }
  // Some arguments must obey their schema, or some tools may not be called.
  bool strict() const { return active() && (!allowed.empty() || std::ranges::any_of(tools, &Tool::strict)); }
  bool forced() const { return active() && choice != Choice::kAuto; }  // the answer is calls and nothing else
};

void read_tools(ToolRequest& request, const OrderedJson& tools);
void read_tool_choice(ToolRequest& request, const Json& choice);
// Of tool_choice's {"type": "allowed_tools"}: {"mode": "auto" | "required", "tools": [{"type": "function",
// …}]}, at `path`. Each of its tools names itself in an object `function` (chat) or right there (responses).
void read_allowed_tools(ToolRequest& request, const std::string& path, const Json& allowed,
                        bool inside_function);
// After all fields: a choice needs its tools.
void check_tools(const ToolRequest& request);

// An assistant message's tool_calls as templates expect them: arguments as an object.
OrderedJson template_tool_calls(const std::string& path, const Json& calls);

// The grammar (Lark) of an answer that is one call, or up to kMostCalls if they may be parallel. Of the
// formats that write calls as JSON.
inline constexpr int kMostCalls = 16;
std::string tool_grammar(const ToolRequest& request, ToolFormat format);
// The same for an answer that may be anything, but whose calls name a tool that may be called and whose
// arguments, where the tool is strict, obey its schema. nullopt: the format's markers are no text, so that no
// grammar can tell.
std::optional<std::string> free_tool_grammar(const ToolRequest& request, ToolFormat format);

// Calls, or else an answer that is JSON of this schema, which is an object. Of Hermes' and Phi's formats:
// others could not be told from the answer.
std::string calls_or_json_grammar(const ToolRequest& request, ToolFormat format, OrderedJson schema);

// For models whose template knows no tools: the same conversation in plain messages, calls in Hermes' format,
// the tools described in the system message.
std::string plain_tool_messages(const std::string& messages_json, const std::string& tools_json);
// Shows the tools to the model: through its template, or as plain messages.
void add_tools(ChatPrompt& chat, const ToolRequest& tools, bool template_has_tools);
// Forgets the tools that may not be called.
void keep_allowed_tools(ToolRequest& request);

}  // namespace mlxs
