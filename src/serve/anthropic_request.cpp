#include "serve/anthropic_request.h"

#include <fmt/format.h>

#include <utility>

#include "serve/anthropic_messages.h"
#include "serve/fields.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

constexpr double kMaxTokens = 1 << 24;
constexpr float kTemperature = 1.0f;  // Anthropic's default, where the engine's own is lower

struct Draft {
  std::string_view body;
  AnthropicRequest request;
  std::string system;
  bool messages = false;
};

OrderedJson ordered(const Draft& draft, const char* field) { return OrderedJson::parse(draft.body)[field]; }

// {"type": "enabled", "budget_tokens": …} | {"type": "adaptive"} | {"type": "disabled"}
void set_thinking(Draft& draft, const Json& value) {
  const std::string type = as_string("thinking.type", value.value("type", Json()));
  if (type != "enabled" && type != "adaptive" && type != "disabled") {
    refuse_field("thinking.type", fmt::format("thinking.type = '{}' is not supported", type),
                 "use enabled, adaptive or disabled");
  }
  draft.request.thinking.on = type != "disabled";
  if (value.contains("budget_tokens")) draft.request.ignored.emplace_back("thinking.budget_tokens");
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
    {{"messages", FieldType::kArray}, [](Draft& d, const Json& v) { d.messages = !v.empty(); }},
    {{"system", FieldType::kAny},
     [](Draft& d, const Json&) {
       d.system = anthropic_text("system", ordered(d, "system"), d.request.ignored);
     }},
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
    {{"tools", FieldType::kArray},
     [](Draft& d, const Json&) { read_anthropic_tools(d.request.tools, ordered(d, "tools")); }},
    {{"tool_choice", FieldType::kObject},
     [](Draft& d, const Json& v) { read_anthropic_tool_choice(d.request.tools, v); }},
    {{"mcp_servers", FieldType::kArray},
     [](Draft&, const Json& v) { refuse_unless_empty("mcp_servers", v); }},
    {{"thinking", FieldType::kObject}, set_thinking},
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
  draft.body = body;
  for (std::string& name : read_fields<Draft>(parse_body(body), kFields, draft)) {
    request.ignored.push_back(std::move(name));
  }
  require(!request.params.model.empty(), "model");
  require(draft.messages, "messages");
  if (api == AnthropicApi::kMessages) require(request.params.max_tokens.has_value(), "max_tokens");
  request.chat = anthropic_messages(ordered(draft, "messages"), draft.system, request.ignored);
  if (request.chat.messages.back().role == "assistant") {
    refuse_field("messages", "the last message is the assistant's",
                 "answers cannot be continued: end with a message of the user");
  }
  check_tools(request.tools);
  if (request.tools.active() && request.params.structured) {
    refuse_field("output_config", "output_config.format and tools are both given", "send one of them");
  }
  return std::move(request);
}

}  // namespace mlxs
