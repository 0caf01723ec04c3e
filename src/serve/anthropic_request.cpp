#include "serve/anthropic_request.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "serve/anthropic_cache.h"
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
      {field::text("user_id", "A label of the tenant"),
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

constexpr std::array<std::string_view, 2> kTiers{"auto", "standard_only"};

void set_output_config(Draft& draft, const Json& value) {
  static constexpr Field<Draft> kFields[] = {{field::object("format", "A JSON schema"), set_format}};
  for (const std::string& name : read_fields<Draft>(value, kFields, draft)) {
    draft.request.ignored.push_back("output_config." + name);
  }
}

void refuse_unless_empty(std::string_view field, const Json& value) {
  if (!value.empty()) refuse_field(field, fmt::format("{} is not supported", field), "leave it out");
}

constexpr Field<Draft> kFields[] = {
    {field::text("model", "A loaded model").required(),
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {field::list("messages", "The conversation so far; the last message is the user's",
                 R"({"minItems": 1, "items": {"$ref": "#/components/schemas/AnthropicMessageInput"}})")
         .required(),
     [](Draft& d, const Json& v) { d.messages = !v.empty(); }},
    {field::any("system", "The system prompt", R"({"anyOf": [{"type": "string"},
                {"type": "array", "items": {"$ref": "#/components/schemas/AnthropicTextBlock"}}]})"),
     [](Draft& d, const Json&) {
       d.system = anthropic_text("system", ordered(d, "system"), d.request.ignored);
     }},
    {field::integer("max_tokens", 1, kMaxTokens,
                    "Tokens of the answer, at most; required but to count tokens"),
     [](Draft& d, const Json& v) {
       d.request.params.max_tokens = static_cast<int>(as_integer("max_tokens", v));
     }},
    {field::flag("stream", "Typed events as the answer comes, instead of one document"),
     [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {field::number("temperature", 0, 1, "0 is greedy; 1 unless given"),
     [](Draft& d, const Json& v) { d.request.params.temperature = v.get<float>(); }},
    {field::number("top_p", 0, 1, "The likeliest tokens that have this probability together"),
     [](Draft& d, const Json& v) { d.request.params.top_p = v.get<float>(); }},
    {field::integer("top_k", 0, kMaxTokens, "The k likeliest tokens; 0: all"),
     [](Draft& d, const Json& v) { d.request.params.top_k = static_cast<int>(as_integer("top_k", v)); }},
    {field::list("stop_sequences", "End the answer, and are not part of it",
                 R"({"maxItems": 16, "items": {"type": "string", "minLength": 1}})"),
     set_stop_sequences},
    {field::object("metadata", "user_id is a label of the tenant",
                   R"({"properties": {"user_id": {"type": ["string", "null"]}}})"),
     set_metadata},
    {field::choice("service_tier", kTiers, "Chooses among tiers: here there is one"),
     [](Draft&, const Json&) {}},
    {field::object("output_config", "What the answer must be",
                   R"({"properties": {"format": {"anyOf": [{"type": "null"}, {"type": "object",
                       "required": ["type", "schema"], "properties": {"type": {"const": "json_schema"},
                       "schema": {"type": "object"}}}]}}})"),
     set_output_config},
    {field::list("tools", "Functions that the model may call",
                 R"({"maxItems": 128, "items": {"$ref": "#/components/schemas/AnthropicTool"}})"),
     [](Draft& d, const Json&) { read_anthropic_tools(d.request.tools, ordered(d, "tools")); }},
    {field::object("tool_choice", "Whether it must call one",
                   R"({"$ref": "#/components/schemas/AnthropicToolChoice"})"),
     [](Draft& d, const Json& v) { read_anthropic_tool_choice(d.request.tools, v); }},
    {field::object("cache_control", "The whole prompt stays computed, as long as serve lets it",
                   R"({"$ref": "#/components/schemas/AnthropicCacheControl"})"),
     [](Draft&, const Json&) {}},  // read with those of the blocks
    {field::object("thread", "Not supported: send the whole conversation", R"({"not": {"type": "object"}})"),
     [](Draft&, const Json&) {
       refuse_field("thread", "thread is not supported", "send the whole conversation each time");
     }},
    {field::object("compaction", "Not supported", R"({"not": {"type": "object"}})"),
     [](Draft&, const Json&) { refuse_field("compaction", "compaction is not supported", "leave it out"); }},
    {field::list("mcp_servers", "Not supported", R"({"maxItems": 0})"),
     [](Draft&, const Json& v) { refuse_unless_empty("mcp_servers", v); }},
    {field::object(
         "thinking", "Whether a thinking model thinks first",
         R"({"required": ["type"], "properties": {"type": {"enum": ["enabled", "adaptive", "disabled"]}}})"),
     set_thinking},
};

void read_beginnings(AnthropicRequest& request, std::string_view body) {
  if (body.find("\"cache_control\"") == std::string_view::npos) return;
  std::vector<std::string> ignored;  // named for the whole request already
  for (CacheMark& mark : read_cache_marks(OrderedJson::parse(body))) {
    const std::string system =
        mark.system.is_null() ? std::string() : anthropic_text("system", mark.system, ignored);
    // Templates want somebody to ask; what, is no part of the beginning.
    if (mark.messages.empty()) mark.messages.push_back({{"role", "user"}, {"content", "\x1f"}});
    request.beginnings.push_back({anthropic_messages(mark.messages, system, ignored), mark.ttl_ms});
  }
}

void require(bool given, std::string_view field) {
  if (!given) {
    refuse_field(field, fmt::format("{} is missing or empty", field), fmt::format("{} is required", field));
  }
}

}  // namespace

Json anthropic_request_schema() {
  Json schema = fields_schema<Draft>(kFields);
  schema["required"].push_back("max_tokens");
  return schema;
}
Json count_tokens_request_schema() { return fields_schema<Draft>(kFields); }

AnthropicRequest parse_anthropic_request(std::string_view body, AnthropicApi api) {
  Draft draft;
  AnthropicRequest& request = draft.request;
  request.params.temperature = kTemperature;
  draft.body = body;
  const Json values = parse_body(body);
  request.said = sampling_said(values);
  for (std::string& name : read_fields<Draft>(values, kFields, draft)) {
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
  read_beginnings(request, body);
  check_tools(request.tools);
  return std::move(request);
}

}  // namespace mlxs
