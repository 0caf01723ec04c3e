#include "serve/chat_messages.h"

#include <fmt/format.h>

#include "serve/tool_request.h"

namespace mlxs {
namespace {

// A message's content: a string, or parts of which every one is text. Parts follow each other as they are.
std::string content_text(const std::string& path, const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    refuse_field(path, fmt::format("{} is missing or has the wrong type", path),
                 fmt::format("{} must be a string or an array of text parts", path));
  }
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const std::string part_path = fmt::format("{}[{}]", path, i);
    const Json& part = content[i];
    check_value({.name = {}, .type = FieldType::kObject}, part_path, part);
    const std::string type = as_string(part_path + ".type", part.value("type", Json()));
    if (type != "text") {
      refuse_field(part_path + ".type", fmt::format("{}.type = '{}' is not supported", part_path, type),
                   "the model reads text: send parts of type 'text'");
    }
    text += as_string(part_path + ".text", part.value("text", Json()));
  }
  return text;
}

struct Message {
  ChatMessage plain;
  OrderedJson full;   // as templates read it
  bool more = false;  // than a role and a text
};

Message read_message(const std::string& path, const Json& message, std::vector<std::string>& ignored) {
  check_value({.name = {}, .type = FieldType::kObject}, path, message);
  Message result;
  std::string& role = result.plain.role;
  role = as_string(path + ".role", message.value("role", Json()));
  if (role == "developer") role = "system";  // OpenAI's newer name for the same
  if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    refuse_field(path + ".role", fmt::format("{}.role = '{}' is not supported", path, role),
                 "use system, developer, user, assistant or tool");
  }
  const bool calls =
      role == "assistant" && message.contains("tool_calls") && !message["tool_calls"].is_null();
  result.more = calls || role == "tool";
  const Json content = message.value("content", Json());
  if (!(calls && content.is_null())) result.plain.content = content_text(path + ".content", content);
  result.full = {{"role", role}, {"content", result.plain.content}};
  for (const auto& [name, value] : message.items()) {
    if (value.is_null() || name == "role" || name == "content") continue;
    const std::string member = fmt::format("{}.{}", path, name);
    if (name == "tool_calls" && calls) {
      result.full[name] = template_tool_calls(member, value);
    } else if (role == "tool" && (name == "tool_call_id" || name == "name")) {
      result.full[name] = as_string(member, value);
    } else if ((name == "reasoning_content" || name == "reasoning") && role == "assistant") {
      result.full["reasoning_content"] = as_string(member, value);
      result.more = true;
    } else if (name == "function_call") {
      refuse_field(member, fmt::format("{} is not supported", member), "use tool_calls, its newer name");
    } else {
      ignored.push_back(member);
    }
  }
  return result;
}

}  // namespace

ChatPrompt read_messages(const Json& messages, std::vector<std::string>& ignored) {
  if (messages.empty()) refuse_field("messages", "messages is empty", "send at least one message");
  ChatPrompt prompt;
  OrderedJson full = OrderedJson::array();
  bool more = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Message message = read_message(fmt::format("messages[{}]", i), messages[i], ignored);
    more |= message.more;
    prompt.messages.push_back(std::move(message.plain));
    full.push_back(std::move(message.full));
  }
  if (more) prompt.messages_json = full.dump();
  return prompt;
}

}  // namespace mlxs
