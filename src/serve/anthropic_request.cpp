#include "serve/anthropic_request.h"

#include <fmt/format.h>

#include <utility>

#include "serve/fields.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

constexpr double kMaxTokens = 1 << 24;
constexpr float kTemperature = 1.0f;  // Anthropic's default, where the engine's own is lower

struct Draft {
  AnthropicRequest request;
  std::string system;
  std::vector<ChatMessage> messages;
};

// A string, or blocks of which every one is text. Blocks follow each other as they are.
std::string content_text(Draft& draft, const std::string& path, const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    refuse_field(path, fmt::format("{} is missing or has the wrong type", path),
                 fmt::format("{} must be a string or an array of text blocks", path));
  }
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const std::string block_path = fmt::format("{}[{}]", path, i);
    const Json& block = content[i];
    check_value({.name = {}, .type = FieldType::kObject}, block_path, block);
    const std::string type = as_string(block_path + ".type", block.value("type", Json()));
    if (type != "text") {
      refuse_field(block_path + ".type", fmt::format("{}.type = '{}' is not supported", block_path, type),
                   "send blocks of type 'text'");
    }
    text += as_string(block_path + ".text", block.value("text", Json()));
    for (const auto& [name, value] : block.items()) {
      if (name == "type" || name == "text" || value.is_null()) continue;
      draft.request.ignored.push_back(fmt::format("{}.{}", block_path, name));
    }
  }
  return text;
}

void set_messages(Draft& draft, const Json& value) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    check_value({.name = {}, .type = FieldType::kObject}, path, value[i]);
    ChatMessage message;
    message.role = as_string(path + ".role", value[i].value("role", Json()));
    if (message.role != "user" && message.role != "assistant") {
      refuse_field(path + ".role", fmt::format("{}.role = '{}' is not supported", path, message.role),
                   "use user or assistant; the system prompt goes into system");
    }
    message.content = content_text(draft, path + ".content", value[i].value("content", Json()));
    for (const auto& [name, member] : value[i].items()) {
      if (name == "role" || name == "content" || member.is_null()) continue;
      draft.request.ignored.push_back(fmt::format("{}.{}", path, name));
    }
    draft.messages.push_back(std::move(message));
  }
}

void set_stop_sequences(Draft& draft, const Json& value) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("stop_sequences[{}]", i);
    draft.request.params.stop.push_back(as_string(path, value[i]));
    if (draft.request.params.stop.back().empty()) {
      refuse_field("stop_sequences", fmt::format("{} is empty", path),
                   "every stop sequence needs a character");
    }
  }
}

void set_metadata(Draft& draft, const Json& value) {
  static constexpr Field<Draft> kFields[] = {
      {{"user_id", FieldType::kString},
       [](Draft& d, const Json& v) { d.request.params.user = v.get<std::string>(); }},
  };
  for (const std::string& name : read_fields<Draft>(value, kFields, draft)) {
    draft.request.ignored.push_back("metadata." + name);
  }
}

// {"type": "json_schema", "schema": …}
void set_format(Draft& draft, const Json& value) {
  if (value.value("type", Json()) != "json_schema") {
    refuse_field("output_config", "output_config.format.type is not supported", "use json_schema");
  }
  const Json schema = value.value("schema", Json());
  check_value({.name = {}, .type = FieldType::kObject}, "output_config.format.schema", schema);
  draft.request.params.structured =
      StructuredOutput{.kind = StructuredOutput::Kind::kJsonSchema, .text = schema.dump()};
}

void set_output_config(Draft& draft, const Json& value) {
  static constexpr Field<Draft> kFields[] = {{{"format", FieldType::kObject}, set_format}};
  for (const std::string& name : read_fields<Draft>(value, kFields, draft)) {
    draft.request.ignored.push_back("output_config." + name);
  }
}

void refuse_unless_empty(std::string_view field, const Json& value) {
  if (!value.empty()) refuse_field(field, fmt::format("{} is not supported", field), "leave it out");
}

constexpr Field<Draft> kFields[] = {
    {{"model", FieldType::kString},
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {{"messages", FieldType::kArray}, set_messages},
    {{"system", FieldType::kAny}, [](Draft& d, const Json& v) { d.system = content_text(d, "system", v); }},
    {{"max_tokens", FieldType::kInteger, 1, kMaxTokens},
     [](Draft& d, const Json& v) {
       d.request.params.max_tokens = static_cast<int>(as_integer("max_tokens", v));
     }},
    {{"stream", FieldType::kBoolean}, [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {{"temperature", FieldType::kNumber, 0, 1},
     [](Draft& d, const Json& v) { d.request.params.temperature = v.get<float>(); }},
    {{"top_p", FieldType::kNumber, 0, 1},
     [](Draft& d, const Json& v) { d.request.params.top_p = v.get<float>(); }},
    {{"top_k", FieldType::kInteger, 0, kMaxTokens},
     [](Draft& d, const Json& v) { d.request.params.top_k = static_cast<int>(as_integer("top_k", v)); }},
    {{"stop_sequences", FieldType::kArray}, set_stop_sequences},
    {{"metadata", FieldType::kObject}, set_metadata},
    {{"output_config", FieldType::kObject}, set_output_config},
    {{"tools", FieldType::kArray}, [](Draft&, const Json& v) { refuse_unless_empty("tools", v); }},
    {{"mcp_servers", FieldType::kArray},
     [](Draft&, const Json& v) { refuse_unless_empty("mcp_servers", v); }},
    {{"thinking", FieldType::kObject},
     [](Draft&, const Json& v) {
       if (v.value("type", Json()) != "disabled")
         refuse_field("thinking", "thinking is not supported",
                      R"(leave it out, or send {"type": "disabled"})");
     }},
};

void require(bool given, std::string_view field) {
  if (!given) {
    refuse_field(field, fmt::format("{} is missing or empty", field), fmt::format("{} is required", field));
  }
}

}  // namespace

AnthropicRequest parse_anthropic_request(std::string_view body, AnthropicApi api) {
  Draft draft;
  AnthropicRequest& request = draft.request;
  request.params.temperature = kTemperature;
  for (std::string& name : read_fields<Draft>(parse_body(body), kFields, draft)) {
    request.ignored.push_back(std::move(name));
  }
  require(!request.params.model.empty(), "model");
  require(!draft.messages.empty(), "messages");
  if (api == AnthropicApi::kMessages) require(request.params.max_tokens.has_value(), "max_tokens");
  if (draft.messages.back().role != "user") {
    refuse_field("messages", "the last message is the assistant's",
                 "answers cannot be continued: end with a message of the user");
  }
  if (!draft.system.empty()) {
    draft.messages.insert(draft.messages.begin(), {.role = "system", .content = std::move(draft.system)});
  }
  ChatPrompt prompt;
  prompt.messages = std::move(draft.messages);
  request.params.prompt = std::move(prompt);
  return std::move(request);
}

}  // namespace mlxs
