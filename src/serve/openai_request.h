// The bodies of OpenAI's chat and text completions, read and checked. Pure: bytes in, values out; throws
// kInvalidJson and kInvalidArgument that name the byte or the field. Ranges that depend on the model are the
// engine's.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/sampling_defaults.h"
#include "serve/thinking.h"
#include "serve/tool_request.h"

namespace mlxs {

// OpenAI's default, where the engine's own is lower.
inline constexpr float kOpenAiTemperature = 1.0f;
// OpenAI's default for text completions; chat has none.
inline constexpr int kCompletionMaxTokens = 16;

struct OpenAiRequest {
  GenerateParams params;        // all but the prompt
  std::vector<Prompt> prompts;  // one for chat
  ToolRequest tools;
  Thinking thinking;
  SamplingSaid said;
  int n = 1;
  bool stream = false;
  bool include_usage = false;                   // a last chunk with the usage
  bool echo = false;                            // text completions: the prompt stands before the answer
  bool logprobs = false;                        // params.top_logprobs is set
  std::string max_tokens_field = "max_tokens";  // the name that the client used for it
  std::string structured_field;                 // likewise; empty: no structured output
  std::string metadata;                         // a JSON object; empty: none
  std::vector<std::string> ignored;             // fields that nothing here reads
};

// As JSON Schemas.
Json chat_request_schema();
Json completion_request_schema();

// most_choices: for n.
inline constexpr int kMostChoices = 4096;  // that can be configured
OpenAiRequest parse_chat_request(std::string_view body, int most_choices = kMostChoices);
OpenAiRequest parse_completion_request(std::string_view body, int most_choices = kMostChoices);

// Of service_tier; nullopt: as usual. Throws kInvalidArgument.
std::optional<RequestPriority> service_tier_priority(std::string_view tier);

}  // namespace mlxs
