#include <fmt/format.h>

#include <deque>

#include "serve/ollama_request.h"

namespace mlxs {
namespace {

// While reading: calls that wait for their results, in order.
struct Conversation {
  std::vector<std::string>& ignored;
  int calls = 0;
  std::deque<std::string> open_ids;
};

OrderedJson read_calls(Conversation& conversation, const std::string& path, const OrderedJson& calls) {
  OrderedJson result = OrderedJson::array();
  check_value({.name = {}, .type = FieldType::kArray}, path, calls);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    check_value({.name = {}, .type = FieldType::kObject}, at, calls[i]);
    const OrderedJson function = calls[i].value("function", OrderedJson());
    check_value({.name = {}, .type = FieldType::kObject}, at + ".function", function);
    OrderedJson arguments = function.value("arguments", OrderedJson::object());
    check_value({.name = {}, .type = FieldType::kObject}, at + ".function.arguments", arguments);
    const OrderedJson given = calls[i].value("id", OrderedJson());
    // Nine characters, as Mistral's templates want them.
    std::string id =
        given.is_null() ? fmt::format("call{:05}", conversation.calls) : as_string(at + ".id", given);
    ++conversation.calls;
    conversation.open_ids.push_back(id);
    result.push_back({{"id", std::move(id)},
                      {"type", "function"},
                      {"function",
                       {{"name", as_string(at + ".function.name", function.value("name", OrderedJson()))},
                        {"arguments", std::move(arguments)}}}});
  }
  return result;
}

// The result of a tool belongs to the call that it names, else to the oldest one without a result.
OrderedJson read_result(Conversation& conversation, const std::string& path, const OrderedJson& message) {
  OrderedJson result = OrderedJson::object();
  if (const auto name = message.find("tool_name"); name != message.end() && !name->is_null())
    result["name"] = as_string(path + ".tool_name", *name);
  std::string id;
  if (const auto given = message.find("tool_call_id"); given != message.end() && !given->is_null()) {
    id = as_string(path + ".tool_call_id", *given);
    std::erase(conversation.open_ids, id);
  } else if (!conversation.open_ids.empty()) {
    id = conversation.open_ids.front();
    conversation.open_ids.pop_front();
  }
  if (!id.empty()) result["tool_call_id"] = id;
  return result;
}

OrderedJson read_message(Conversation& conversation, const std::string& path, const OrderedJson& message,
                         bool& plain) {
  check_value({.name = {}, .type = FieldType::kObject}, path, message);
  const std::string role = as_string(path + ".role", message.value("role", OrderedJson()));
  if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    refuse_field(path + ".role", fmt::format("{}.role = '{}' is not supported", path, role),
                 "use system, user, assistant or tool");
  }
  OrderedJson read{{"role", role}, {"content", ""}};
  for (const auto& [name, value] : message.items()) {
    const std::string member = fmt::format("{}.{}", path, name);
    if (value.is_null() || name == "role") continue;
    if (name == "content") {
      read["content"] = as_string(member, value);
    } else if (name == "images") {
      if (!value.empty())
        refuse_field(member, fmt::format("{} is not supported", member), "the model reads text");
    } else if (name == "tool_calls" && role == "assistant") {
      if (value.empty()) continue;
      read["tool_calls"] = read_calls(conversation, member, value);
      plain = false;
    } else if (name == "thinking" && role == "assistant") {
      read["reasoning_content"] = as_string(member, value);
      plain = false;
    } else if (!(role == "tool" && (name == "tool_name" || name == "tool_call_id"))) {
      conversation.ignored.push_back(member + " is not known and was ignored");
    }
  }
  if (role == "tool") {
    read.update(read_result(conversation, path, message));
    plain = false;
  }
  return read;
}

}  // namespace

ChatPrompt read_ollama_messages(const OrderedJson& messages, std::vector<std::string>& ignored) {
  ChatPrompt prompt;
  Conversation conversation{.ignored = ignored, .calls = 0, .open_ids = {}};
  OrderedJson full = OrderedJson::array();
  bool plain = true;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    full.push_back(read_message(conversation, fmt::format("messages[{}]", i), messages[i], plain));
    prompt.messages.push_back({.role = full.back()["role"], .content = full.back()["content"]});
  }
  if (!plain) prompt.messages_json = full.dump();
  return prompt;
}

}  // namespace mlxs
