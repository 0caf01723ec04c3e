#include "serve/anthropic_messages.h"

#include <fmt/format.h>

#include <utility>

namespace mlxs {
namespace {

// Missing, or null, is an empty Json.
OrderedJson member(const OrderedJson& object, const char* name) { return object.value(name, OrderedJson()); }

std::string block_type(const std::string& path, const OrderedJson& block) {
  check_value({.name = {}, .type = FieldType::kObject}, path, block);
  return as_string(path + ".type", member(block, "type"));
}

void note_ignored(const std::string& path, const OrderedJson& block,
                  std::initializer_list<std::string_view> known, std::vector<std::string>& ignored) {
  for (const auto& [name, value] : block.items()) {
    if (value.is_null() || std::ranges::find(known, name) != known.end()) continue;
    ignored.push_back(fmt::format("{}.{}", path, name));
  }
}

// One message of the client: an assistant's is one for the template too; a user's, one for each result of a
// tool, and one for the text behind them.
class MessageReader {
 public:
  MessageReader(std::string path, std::string role, std::vector<std::string>& ignored)
      : path_(std::move(path)), role_(std::move(role)), ignored_(ignored) {}

  void read(const OrderedJson& content) {
    if (!content.is_array()) {
      text_ = anthropic_text(path_, content, ignored_);
      return;
    }
    for (std::size_t i = 0; i < content.size(); ++i) block(fmt::format("{}[{}]", path_, i), content[i]);
  }

  // Appends what the template reads; true: it is more than a role and a text.
  bool append_to(OrderedJson& messages) {
    for (auto& result : results_) messages.push_back(std::move(result));
    const bool more = !results_.empty() || !calls_.empty() || !thinking_.empty();
    if (!results_.empty() && text_.empty()) return more;
    OrderedJson message{{"role", role_}, {"content", text_}};
    if (!thinking_.empty()) message["reasoning_content"] = thinking_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
    messages.push_back(std::move(message));
    return more;
  }

 private:
  void block(const std::string& at, const OrderedJson& block) {
    const std::string type = block_type(at, block);
    const bool assistant = role_ == "assistant";
    if (type == "text") {
      text_ += as_string(at + ".text", member(block, "text"));
      note_ignored(at, block, {"type", "text", "citations", "cache_control"}, ignored_);
    } else if (type == "thinking" && assistant) {
      thinking_ += as_string(at + ".thinking", member(block, "thinking"));
    } else if (type == "tool_use" && assistant) {
      const OrderedJson input = member(block, "input");
      check_value({.name = {}, .type = FieldType::kObject}, at + ".input", input);
      calls_.push_back(
          {{"id", as_string(at + ".id", member(block, "id"))},
           {"type", "function"},
           {"function", {{"name", as_string(at + ".name", member(block, "name"))}, {"arguments", input}}}});
    } else if (type == "tool_result" && !assistant) {
      const OrderedJson content = member(block, "content");
      results_.push_back(
          {{"role", "tool"},
           {"tool_call_id", as_string(at + ".tool_use_id", member(block, "tool_use_id"))},
           {"content", content.is_null() ? "" : anthropic_text(at + ".content", content, ignored_)}});
      note_ignored(at, block, {"type", "tool_use_id", "content", "is_error", "cache_control"}, ignored_);
    } else {
      refuse_field(at + ".type",
                   fmt::format("{}.type = '{}' is not supported in a message of role {}", at, type, role_),
                   assistant ? "use text, thinking and tool_use" : "use text and tool_result");
    }
  }

  std::string path_, role_;
  std::vector<std::string>& ignored_;
  std::string text_, thinking_;
  OrderedJson calls_ = OrderedJson::array();
  std::vector<OrderedJson> results_;
};

}  // namespace

std::string anthropic_text(const std::string& path, const OrderedJson& content,
                           std::vector<std::string>& ignored) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    refuse_field(path, fmt::format("{} is missing or has the wrong type", path),
                 fmt::format("{} must be a string or an array of blocks", path));
  }
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    if (const std::string type = block_type(at, content[i]); type != "text") {
      refuse_field(at + ".type", fmt::format("{}.type = '{}' is not supported", at, type),
                   "send blocks of type 'text'");
    }
    text += as_string(at + ".text", member(content[i], "text"));
    note_ignored(at, content[i], {"type", "text", "cache_control"}, ignored);
  }
  return text;
}

ChatPrompt anthropic_messages(const OrderedJson& messages, const std::string& system,
                              std::vector<std::string>& ignored) {
  OrderedJson full = OrderedJson::array();
  if (!system.empty()) full.push_back({{"role", "system"}, {"content", system}});
  bool more = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    check_value({.name = {}, .type = FieldType::kObject}, path, messages[i]);
    std::string role = as_string(path + ".role", member(messages[i], "role"));
    if (role != "user" && role != "assistant") {
      refuse_field(path + ".role", fmt::format("{}.role = '{}' is not supported", path, role),
                   "use user or assistant; the system prompt goes into system");
    }
    MessageReader reader(path + ".content", std::move(role), ignored);
    reader.read(member(messages[i], "content"));
    more |= reader.append_to(full);
    note_ignored(path, messages[i], {"role", "content"}, ignored);
  }
  ChatPrompt prompt;
  if (more) prompt.messages_json = full.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  for (const auto& message : full)
    prompt.messages.push_back({.role = message["role"], .content = message["content"]});
  return prompt;
}

void read_anthropic_tools(ToolRequest& request, const OrderedJson& tools) {
  OrderedJson chat = OrderedJson::array();
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    check_value({.name = {}, .type = FieldType::kObject}, path, tools[i]);
    const OrderedJson type = member(tools[i], "type");
    if (!type.is_null() && type != "custom") {
      refuse_field(path + ".type", fmt::format("{}.type = {} is not supported", path, type.dump()),
                   "use tools of your own, of type 'custom'");
    }
    OrderedJson function{{"name", member(tools[i], "name")}};
    if (tools[i].contains("description")) function["description"] = tools[i]["description"];
    function["parameters"] = member(tools[i], "input_schema");
    if (tools[i].contains("strict")) function["strict"] = tools[i]["strict"];
    chat.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  try {
    read_tools(request, chat);
  } catch (const Error& error) {  // it names chat's members
    std::string what = error.what(), field = error.field();
    for (std::string* text : {&what, &field}) {
      for (const auto& [chats, ours] :
           {std::pair<std::string_view, std::string_view>{".function.parameters", ".input_schema"},
            {".function", ""}}) {
        for (std::size_t at; (at = text->find(chats)) != std::string::npos;)
          text->replace(at, chats.size(), ours);
      }
    }
    throw Error(error.code(), what, error.hint(), field);
  }
}

void read_anthropic_tool_choice(ToolRequest& request, const Json& choice) {
  using Choice = ToolRequest::Choice;
  const std::string type = as_string("tool_choice.type", choice.value("type", Json()));
  if (type == "tool") {
    request.choice = Choice::kNamed;
    request.named = as_string("tool_choice.name", choice.value("name", Json()));
  } else if (type == "auto" || type == "any" || type == "none") {
    request.choice = type == "auto" ? Choice::kAuto : type == "any" ? Choice::kRequired : Choice::kNone;
  } else {
    refuse_field("tool_choice.type", fmt::format("tool_choice.type = '{}' is not supported", type),
                 "use auto, any, tool or none");
  }
  const Json alone = choice.value("disable_parallel_tool_use", Json(false));
  check_value({.name = {}, .type = FieldType::kBoolean}, "tool_choice.disable_parallel_tool_use", alone);
  request.parallel = !alone.get<bool>();
}

}  // namespace mlxs
