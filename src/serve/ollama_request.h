// The bodies of Ollama's chat and generate APIs, read and checked. Pure: bytes in, values out; throws
// kInvalidJson and kInvalidArgument that name the byte or the field. What depends on the model is decided
// when it is known.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/sampling_defaults.h"
#include "serve/tool_request.h"

namespace mlxs {

enum class OllamaApi : std::uint8_t { kChat, kGenerate };

// How long a model stays after its last request; negative: for ever. nullopt: the client did not say.
using KeepAlive = std::optional<std::chrono::nanoseconds>;
// A number of seconds, or Go's durations ("1h30m", "250ms"). Throws kInvalidArgument.
std::chrono::nanoseconds read_keep_alive(const Json& value);

struct OllamaRequest {
  GenerateParams params;  // all but the prompt
  ChatPrompt chat;        // the messages; generate: made of system and prompt
  std::string raw;        // generate: the prompt as it is
  bool verbatim = false;  // generate: send raw, without the template
  bool empty = false;     // nothing to say: the model is loaded, or unloaded
  bool stream = true;
  ToolRequest tools;
  SamplingSaid said;
  std::optional<bool> think;
  std::string effort;          // of thinking: "low", "medium", "high"; empty: not given
  std::optional<int> num_ctx;  // tokens of prompt and answer
  KeepAlive keep_alive;
  std::vector<std::string> ignored;  // fields that change nothing here, and why
};

// As JSON Schemas.
Json ollama_chat_schema();
Json ollama_generate_schema();
Json ollama_options_schema();

OllamaRequest parse_ollama_request(std::string_view body, OllamaApi api);

// The "options" object. Ranges that depend on the model are the engine's.
void read_ollama_options(OllamaRequest& request, const Json& options);

// The messages of a chat: calls with their arguments as objects, results by their tool's name. Calls get ids
// where the client has none, because some templates insist on them.
ChatPrompt read_ollama_messages(const OrderedJson& messages, std::vector<std::string>& ignored);

}  // namespace mlxs
