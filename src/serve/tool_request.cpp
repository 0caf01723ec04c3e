#include "serve/tool_request.h"

#include <fmt/format.h>

#include <algorithm>

namespace mlxs {
namespace {

constexpr std::size_t kMostTools = 128;
constexpr std::size_t kLongestName = 64;

std::string read_name(const std::string& path, const Json& value) {
  std::string name = as_string(path, value);
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (name.empty() || name.size() > kLongestName || !std::ranges::all_of(name, fits)) {
    refuse_field(path, fmt::format("{} is not a function's name", path),
                 fmt::format("use 1 … {} letters, digits, '_', '-' and '.'", kLongestName));
  }
  return name;
}

// JSON with the spaces that models write between its parts.
std::string spaced_json(const OrderedJson& value) {
  if (value.is_object() || value.is_array()) {
    std::string text(1, value.is_object() ? '{' : '[');
    bool first = true;
    for (const auto& [key, member] : value.items()) {
      if (!std::exchange(first, false)) text += ", ";
      if (value.is_object()) text += OrderedJson(key).dump() + ": ";
      text += spaced_json(member);
    }
    return text + (value.is_object() ? '}' : ']');
  }
  return value.dump();
}

std::string hermes_call(const OrderedJson& call) {
  const OrderedJson& function = call.at("function");
  return "<tool_call>\n" +
         spaced_json({{"name", function.at("name")}, {"arguments", function.at("arguments")}}) +
         "\n</tool_call>";
}

std::string describe_tools(const std::string& tools_json) {
  std::string text =
      "You can call functions. Each line between <tools> and </tools> describes one, its parameters as a "
      "JSON "
      "Schema:\n<tools>\n";
  for (const auto& tool : OrderedJson::parse(tools_json)) text += spaced_json(tool) + "\n";
  return text +
         "</tools>\nTo call a function, write only this, once for each call:\n<tool_call>\n"
         "{\"name\": \"the function's name\", \"arguments\": {\"parameter\": \"value\"}}\n</tool_call>\n"
         "The results come back between <tool_response> and </tool_response>.";
}

std::string messages_json(const ChatPrompt& prompt) {
  if (!prompt.messages_json.empty()) return prompt.messages_json;
  OrderedJson messages = OrderedJson::array();
  for (const ChatMessage& message : prompt.messages) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  return messages.dump();
}

}  // namespace

void read_tools(ToolRequest& request, const OrderedJson& tools) {
  if (tools.size() > kMostTools) {
    refuse_field("tools", fmt::format("tools has {} entries", tools.size()),
                 fmt::format("at most {} are allowed", kMostTools));
  }
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    const Json tool = tools[i];  // for checks, where order does not matter
    check_value({.name = {}, .type = FieldType::kObject}, path, tool);
    const std::string type = as_string(path + ".type", tool.value("type", Json()));
    if (type != "function") {
      refuse_field(path + ".type", fmt::format("{}.type = '{}' is not supported", path, type),
                   "use tools of type 'function'");
    }
    const Json function = tool.value("function", Json());
    check_value({.name = {}, .type = FieldType::kObject}, path + ".function", function);
    ToolRequest::Tool read{.name = read_name(path + ".function.name", function.value("name", Json())),
                           .parameters = OrderedJson::object()};
    for (const ToolRequest::Tool& other : request.tools) {
      if (other.name == read.name) {
        refuse_field(path + ".function.name", fmt::format("two tools have the name '{}'", read.name),
                     "give each its own");
      }
    }
    if (const Json parameters = function.value("parameters", Json()); !parameters.is_null()) {
      check_value({.name = {}, .type = FieldType::kObject}, path + ".function.parameters", parameters);
      read.parameters = tools[i]["function"]["parameters"];
    }
    // The arguments are an object in any case; without parameters, an empty one.
    if (read.parameters.empty())
      read.parameters = {{"properties", OrderedJson::object()}, {"additionalProperties", false}};
    if (!read.parameters.contains("type") && !read.parameters.contains("$ref"))
      read.parameters["type"] = "object";
    if (const Json strict = function.value("strict", Json()); !strict.is_null()) {
      check_value({.name = {}, .type = FieldType::kBoolean}, path + ".function.strict", strict);
      read.strict = strict.get<bool>();
    }
    request.tools.push_back(std::move(read));
  }
  if (!tools.empty()) request.tools_json = tools.dump();
}

void read_tool_choice(ToolRequest& request, const Json& choice) {
  using Choice = ToolRequest::Choice;
  if (choice == "auto") {
    request.choice = Choice::kAuto;
  } else if (choice == "none") {
    request.choice = Choice::kNone;
  } else if (choice == "required") {
    request.choice = Choice::kRequired;
  } else if (choice.is_object() && choice.value("type", Json()) == "function") {
    const Json function = choice.value("function", Json());
    check_value({.name = {}, .type = FieldType::kObject}, "tool_choice.function", function);
    request.choice = Choice::kNamed;
    request.named = as_string("tool_choice.function.name", function.value("name", Json()));
  } else if (choice.is_object() && choice.value("type", Json()) == "allowed_tools") {
    read_allowed_tools(request, "tool_choice.allowed_tools", choice.value("allowed_tools", Json()), true);
  } else {
    refuse_field("tool_choice", "tool_choice is not supported with this value",
                 R"(use "auto", "none", "required", {"type": "function", "function": {"name": …}} or )"
                 R"({"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}})");
  }
}

void read_allowed_tools(ToolRequest& request, const std::string& path, const Json& allowed,
                        bool inside_function) {
  using Choice = ToolRequest::Choice;
  check_value({.name = {}, .type = FieldType::kObject}, path, allowed);
  const std::string mode = as_string(path + ".mode", allowed.value("mode", Json()));
  if (mode != "auto" && mode != "required") {
    refuse_field(path + ".mode", fmt::format("{}.mode = '{}' is not supported", path, mode),
                 "use auto or required");
  }
  request.choice = mode == "auto" ? Choice::kAuto : Choice::kRequired;
  const Json tools = allowed.value("tools", Json());
  check_value({.name = {}, .type = FieldType::kArray}, path + ".tools", tools);
  if (tools.empty())
    refuse_field(path + ".tools", fmt::format("{}.tools is empty", path), "name at least one of the tools");
  for (std::size_t i = 0; i < tools.size(); ++i) {
    std::string at = fmt::format("{}.tools[{}]", path, i);
    check_value({.name = {}, .type = FieldType::kObject}, at, tools[i]);
    if (const std::string type = as_string(at + ".type", tools[i].value("type", Json()));
        type != "function") {
      refuse_field(at + ".type", fmt::format("{}.type = '{}' is not supported", at, type),
                   "name tools of type 'function'");
    }
    Json tool = tools[i];
    if (inside_function) {
      at += ".function";
      tool = tool.value("function", Json());
      check_value({.name = {}, .type = FieldType::kObject}, at, tool);
    }
    request.allowed.push_back(as_string(at + ".name", tool.value("name", Json())));
  }
}

void check_tools(const ToolRequest& request) {
  using Choice = ToolRequest::Choice;
  const auto check_known = [&](std::string_view field, const std::string& name) {
    if (std::ranges::find(request.tools, name, &ToolRequest::Tool::name) != request.tools.end()) return;
    refuse_field(field, fmt::format("tool_choice names '{}', which is not in tools", name),
                 "name one of the tools");
  };
  if (request.choice == Choice::kNone) return;
  if (request.tools.empty() && (request.choice != Choice::kAuto || !request.allowed.empty()))
    refuse_field("tool_choice", "tool_choice asks for a call, but there are no tools", "send tools");
  for (const std::string& name : request.allowed) check_known("tool_choice", name);
  if (request.choice == Choice::kNamed) check_known("tool_choice.function.name", request.named);
}

OrderedJson template_tool_calls(const std::string& path, const Json& calls) {
  check_value({.name = {}, .type = FieldType::kArray}, path, calls);
  OrderedJson result = OrderedJson::array();
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    check_value({.name = {}, .type = FieldType::kObject}, at, calls[i]);
    const Json function = calls[i].value("function", Json());
    check_value({.name = {}, .type = FieldType::kObject}, at + ".function", function);
    const std::string text = as_string(at + ".function.arguments", function.value("arguments", Json("{}")));
    OrderedJson arguments = OrderedJson::parse(text.empty() ? "{}" : text, nullptr, false);
    if (!arguments.is_object()) {
      refuse_field(at + ".function.arguments", fmt::format("{}.function.arguments is not a JSON object", at),
                   "send back what the call had");
    }
    OrderedJson call;
    if (const Json id = calls[i].value("id", Json()); !id.is_null()) call["id"] = as_string(at + ".id", id);
    call["type"] = "function";
    call["function"] = {{"name", read_name(at + ".function.name", function.value("name", Json()))},
                        {"arguments", std::move(arguments)}};
    result.push_back(std::move(call));
  }
  return result;
}

std::string plain_tool_messages(const std::string& messages_json, const std::string& tools_json) {
  OrderedJson result = OrderedJson::array();
  if (!tools_json.empty()) result.push_back({{"role", "system"}, {"content", describe_tools(tools_json)}});
  bool result_before =
      false;  // results that follow each other share a message: templates want turns to alternate
  for (const auto& message : OrderedJson::parse(messages_json)) {
    const std::string role = message.at("role");
    std::string content = message.value("content", std::string());
    if (role == "tool") {
      content = "<tool_response>\n" + content + "\n</tool_response>";
      if (result_before) {
        result.back()["content"] = result.back()["content"].get<std::string>() + "\n" + content;
      } else {
        result.push_back({{"role", "user"}, {"content", content}});
      }
      result_before = true;
      continue;
    }
    result_before = false;
    if (role == "system" && !tools_json.empty() && result.size() == 1) {
      result.back()["content"] = content + "\n\n" + result.back()["content"].get<std::string>();
      continue;
    }
    if (message.contains("tool_calls")) {
      for (const auto& call : message["tool_calls"])
        content += (content.empty() ? "" : "\n") + hermes_call(call);
    }
    result.push_back({{"role", role}, {"content", content}});
  }
  return result.dump();
}

void keep_allowed_tools(ToolRequest& request) {
  if (request.allowed.empty()) return;
  OrderedJson kept = OrderedJson::array();
  const OrderedJson all = OrderedJson::parse(request.tools_json);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (request.may_call(request.tools[i])) kept.push_back(all[i]);
  }
  std::erase_if(request.tools, [&](const auto& tool) { return !request.may_call(tool); });
  request.tools_json = kept.dump();
  request.allowed.clear();
}

void add_tools(ChatPrompt& chat, const ToolRequest& tools, bool template_has_tools) {
  if (tools.active()) chat.tools_json = tools.tools_json;
  if (template_has_tools || (chat.tools_json.empty() && chat.messages_json.empty())) return;
  chat.messages_json = plain_tool_messages(messages_json(chat), chat.tools_json);
  chat.tools_json.clear();
}

}  // namespace mlxs
