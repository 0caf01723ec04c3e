// The body of Anthropic's messages API, read and checked. Pure: bytes in, values out; throws kInvalidJson and
// kInvalidArgument that name the byte or the field. Ranges that depend on the model are the engine's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/chat_setup.h"
#include "serve/sampling_defaults.h"
#include "serve/tool_request.h"

namespace mlxs {

enum class AnthropicApi : std::uint8_t { kMessages, kCountTokens };

struct AnthropicRequest {
  GenerateParams params;  // all but the prompt
  ChatPrompt chat;
  ToolRequest tools;
  Thinking thinking;
  SamplingSaid said;
  struct Beginning {  // that should stay computed (cache_control)
    ChatPrompt chat;
    int ttl_ms = 0;
  };
  std::vector<Beginning> beginnings;
  bool stream = false;
  std::vector<std::string> ignored;  // fields that nothing here reads
};

// As JSON Schemas.
Json anthropic_request_schema();
Json count_tokens_request_schema();

AnthropicRequest parse_anthropic_request(std::string_view body, AnthropicApi api);

}  // namespace mlxs
