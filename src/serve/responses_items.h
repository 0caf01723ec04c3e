// The output items of a response while they are written: thinking, messages and calls, in the order in which
// they came. Each knows how it reads as JSON, begun or complete. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/tool_request.h"

namespace mlxs {

struct ResponsesItem {
  enum class Type : std::uint8_t { kReasoning, kMessage, kCall } type = Type::kMessage;
  std::string id;
  std::string text;           // of the thinking or the answer; the arguments of a call
  std::string call_id, name;  // calls
  std::string logprobs;       // messages: JSON, without brackets

  // status: "in_progress" shows it as it is at its begin, without content.
  std::string json(std::string_view status) const;
  std::string part_json(bool begun) const;  // the one part of its content; none for calls
};

// The assistant's message that the items are together, as templates read it.
OrderedJson assistant_message(const std::vector<ResponsesItem>& items);

}  // namespace mlxs
