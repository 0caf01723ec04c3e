#include "serve/responses_items.h"

#include <fmt/format.h>

#include <utility>

#include "serve/json_text.h"

namespace mlxs {

std::string ResponsesItem::part_json(bool begun) const {
  if (type == Type::kReasoning)
    return R"({"type":"reasoning_text","text":)" + json_string(begun ? std::string_view() : text) + "}";
  return fmt::format(R"({{"type":"output_text","annotations":[],"logprobs":[{}],"text":{}}})",
                     begun ? "" : logprobs, json_string(begun ? std::string_view() : text));
}

std::string ResponsesItem::json(std::string_view status) const {
  const bool begun = status == "in_progress";
  switch (type) {
    case Type::kReasoning:
      return fmt::format(R"({{"id":"{}","type":"reasoning","status":"{}","summary":[],"content":[{}]}})", id,
                         status, begun ? "" : part_json(false));
    case Type::kMessage:
      return fmt::format(R"({{"id":"{}","type":"message","status":"{}","role":"assistant","content":[{}]}})",
                         id, status, begun ? "" : part_json(false));
    case Type::kCall:
      return fmt::format(
          R"({{"id":"{}","type":"function_call","status":"{}","call_id":"{}","name":{},"arguments":{}}})", id,
          status, call_id, json_string(name), begun ? "\"\"" : json_string(text));
  }
  return "{}";
}

OrderedJson assistant_message(const std::vector<ResponsesItem>& items) {
  OrderedJson message{{"role", "assistant"}, {"content", ""}};
  std::string content, reasoning;
  for (const ResponsesItem& item : items) {
    if (item.type == ResponsesItem::Type::kMessage) content += item.text;
    if (item.type == ResponsesItem::Type::kReasoning) reasoning += item.text;
    if (item.type != ResponsesItem::Type::kCall) continue;
    OrderedJson arguments = OrderedJson::parse(item.text, nullptr, false);
    if (!arguments.is_object()) arguments = OrderedJson::object();  // cut short
    message["tool_calls"].push_back(
        {{"id", item.call_id},
         {"type", "function"},
         {"function", {{"name", item.name}, {"arguments", std::move(arguments)}}}});
  }
  message["content"] = valid_utf8(content);
  if (!reasoning.empty()) message["reasoning_content"] = valid_utf8(reasoning);
  return message;
}

}  // namespace mlxs
