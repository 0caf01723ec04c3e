#include "serve/responses_request.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "serve/json_text.h"
#include "serve/metadata_field.h"
#include "serve/openai_request.h"
#include "serve/structured_fields.h"

namespace mlxs {
namespace {

constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxTop = 20;

struct Draft {
  std::string_view body;
  ResponsesRequest request;
  bool input = false;
  int top_logprobs = 0;
};

OrderedJson ordered(const Draft& draft, const char* field) { return OrderedJson::parse(draft.body)[field]; }

[[noreturn]] void refuse(std::string_view field) {
  refuse_field(field, fmt::format("{} is not supported", field), "leave it out");
}

// {"type":"function","name":…} → {"type":"function","function":{"name":…}}, as chat has it.
OrderedJson chat_tool(const OrderedJson& tool) {
  OrderedJson function = tool;
  function.erase("type");
  return {{"type", "function"}, {"function", std::move(function)}};
}

void set_tools(Draft& draft, const Json&) {
  const OrderedJson tools = ordered(draft, "tools");
  OrderedJson chat = OrderedJson::array();
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    check_value({.name = {}, .type = FieldType::kObject}, path, tools[i]);
    const std::string type = as_string(path + ".type", tools[i].value("type", OrderedJson()));
    if (type != "function") {
      refuse_field(path + ".type", fmt::format("{}.type = '{}' is not supported", path, type),
                   "use tools of type 'function'");
    }
    chat.push_back(chat_tool(tools[i]));
  }
  try {
    read_tools(draft.request.tools, chat);
  } catch (const Error& error) {  // it names a member of chat's "function", which is none here
    constexpr std::string_view kInner = ".function";
    const auto outer = [&](std::string text) {
      for (std::size_t at; (at = text.find(kInner)) != std::string::npos;) text.erase(at, kInner.size());
      return text;
    };
    throw Error(error.code(), outer(error.what()), outer(error.hint()), outer(error.field()));
  }
  draft.request.echo["tools"] = tools;
}

void set_tool_choice(Draft& draft, const Json& value) {
  draft.request.echo["tool_choice"] = ordered(draft, "tool_choice");
  const Json type = value.is_object() ? value.value("type", Json()) : Json();
  if (type == "allowed_tools") return read_allowed_tools(draft.request.tools, "tool_choice", value, false);
  Json choice = value;
  if (type == "function") choice = {{"type", type}, {"function", {{"name", value.value("name", Json())}}}};
  read_tool_choice(draft.request.tools, choice);
}

// {"format": {"type": "text" | "json_object" | "json_schema", "schema": …}, "verbosity": …}
void set_text(Draft& draft, const Json& value) {
  ResponsesRequest& request = draft.request;
  for (const auto& [name, member] : value.items()) {
    if (name != "format" && !member.is_null()) request.ignored.push_back("text." + name);
  }
  const Json format = value.value("format", Json());
  if (format.is_null()) return;
  check_value({.name = {}, .type = FieldType::kObject}, "text.format", format);
  const std::string type = as_string("text.format.type", format.value("type", Json()));
  if (type == "json_object") {
    request.params.structured = StructuredOutput{};
  } else if (type == "json_schema") {
    if (!format.contains("schema"))
      refuse_field("text.format.schema", "text.format.schema is missing", "put the JSON schema there");
    // Read again: a schema's properties are generated in the order in which they stand.
    request.params.structured = read_constraint("json", "text.format.schema", format["schema"]);
    request.params.structured->text = ordered(draft, "text")["format"]["schema"].dump();
  } else if (type != "text") {
    refuse_field("text.format.type", fmt::format("text.format.type = '{}' is not supported", type),
                 "use text, json_object or json_schema");
  }
  if (request.params.structured) request.structured_field = "text.format";
  request.echo["text"] = ordered(draft, "text");
}

void set_reasoning(Draft& draft, const Json& value) {
  for (const auto& [name, member] : value.items()) {
    if (member.is_null()) continue;
    if (name == "effort") {
      draft.request.thinking = read_effort("reasoning.effort", as_string("reasoning.effort", member));
    } else {
      draft.request.ignored.push_back("reasoning." + name);
    }
  }
  draft.request.echo["reasoning"] = value;
}

void set_metadata(Draft& draft, const Json& value) {
  draft.request.metadata = read_metadata(value);
  draft.request.echo["metadata"] = ordered(draft, "metadata");
}

void set_include(Draft& draft, const Json& value) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string what = as_string(fmt::format("include[{}]", i), value[i]);
    if (what == "message.output_text.logprobs") {
      draft.request.logprobs = true;
    } else if (what != "reasoning.encrypted_content") {  // thinking is never withheld: nothing to encrypt
      refuse_field("include", fmt::format("include[{}] = '{}' is not supported", i, what),
                   "use message.output_text.logprobs");
    }
  }
}

void set_service_tier(Draft& draft, const Json& value) {
  const auto priority = service_tier_priority(value.get_ref<const std::string&>());
  draft.request.params.priority = priority.value_or(RequestPriority::kNormal);
  draft.request.echo["service_tier"] = value;
}

constexpr std::array<std::string_view, 4> kTiers{"auto", "default", "flex", "priority"};
constexpr std::array<std::string_view, 1> kTruncations{"disabled"};

constexpr Field<Draft> kFields[] = {
    {field::text("model", "A loaded model; may be left out while there is one"),
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {field::any("input", "A text, or items: messages, calls and their results, thinking",
                R"({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1,
                    "items": {"$ref": "#/components/schemas/ResponseInputItem"}}]})")
         .required(),
     [](Draft& d, const Json&) {
       d.input = true;
       read_responses_input(d.request, ordered(d, "input"));
     }},
    {field::text("instructions", "A system message of this response alone"),
     [](Draft& d, const Json& v) {
       d.request.instructions = v.get<std::string>();
       d.request.echo["instructions"] = v;
     }},
    {field::text("previous_response_id", "A stored response to go on from"),
     [](Draft& d, const Json& v) {
       d.request.previous_id = v.get<std::string>();
       d.request.echo["previous_response_id"] = v;
     }},
    {field::integer("max_output_tokens", 1, kMaxTokens, "Tokens of the answer, at most"),
     [](Draft& d, const Json& v) {
       d.request.params.max_tokens = static_cast<int>(as_integer("max_output_tokens", v));
       d.request.echo["max_output_tokens"] = v;
     }},
    {field::number("temperature", 0, 2, "0 is greedy; 1 unless given"),
     [](Draft& d, const Json& v) {
       d.request.params.temperature = v.get<float>();
       d.request.echo["temperature"] = v;
     }},
    {field::number("top_p", 0, 1, "The likeliest tokens that have this probability together"),
     [](Draft& d, const Json& v) {
       d.request.params.top_p = v.get<float>();
       d.request.echo["top_p"] = v;
     }},
    {field::integer("top_logprobs", 0, kMaxTop, "So many of the likeliest tokens beside each"),
     [](Draft& d, const Json& v) {
       d.top_logprobs = static_cast<int>(as_integer("top_logprobs", v));
       d.request.echo["top_logprobs"] = v;
     }},
    {field::flag("stream", "Typed events as the answer comes, instead of one document"),
     [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {field::flag("store", "Whether it can be read back and gone on from; true unless given"),
     [](Draft& d, const Json& v) {
       d.request.store = v.get<bool>();
       d.request.echo["store"] = v;
     }},
    {field::list("tools", "Functions that the model may call",
                 R"({"maxItems": 128, "items": {"$ref": "#/components/schemas/ResponseTool"}})"),
     set_tools},
    {field::any("tool_choice", "Whether it must call one, and which it may",
                R"({"anyOf": [{"$ref": "#/components/schemas/ResponseToolChoice"}]})"),
     set_tool_choice},
    {field::flag("parallel_tool_calls", "Whether it may call several at once; true unless given"),
     [](Draft& d, const Json& v) {
       d.request.tools.parallel = v.get<bool>();
       d.request.echo["parallel_tool_calls"] = v;
     }},
    {field::object("text", "What the answer must be",
                   R"({"properties": {"format": {"$ref": "#/components/schemas/ResponseTextFormat"}}})"),
     set_text},
    {field::object(
         "reasoning", "How much a thinking model thinks first",
         R"({"properties": {"effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", null]}}})"),
     set_reasoning},
    {kMetadataRule, set_metadata},
    {field::list("include", "What else to return",
                 R"({"items": {"enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]}})"),
     set_include},
    {field::choice("service_tier", kTiers, "The priority: priority is high, flex is low"), set_service_tier},
    {field::text("user", "A label of the tenant, where nobody is asked for a key"),
     [](Draft& d, const Json& v) {
       d.request.params.user = v.get<std::string>();
       d.request.echo["user"] = v;
     }},
    {field::choice("truncation", kTruncations, "A prompt is never truncated"), [](Draft&, const Json&) {}},
    {field::any("background", "Not supported", R"({"anyOf": [{"const": false}]})"),
     [](Draft&, const Json& v) {
       check_value({.name = {}, .type = FieldType::kBoolean}, "background", v);
       if (v.get<bool>()) refuse("background");
     }},
    {field::any("conversation", "Not supported", R"({"anyOf": [{"type": "null"}]})"),
     [](Draft&, const Json&) { refuse("conversation"); }},
    {field::any("prompt", "Not supported", R"({"anyOf": [{"type": "null"}]})"),
     [](Draft&, const Json&) { refuse("prompt"); }},
};

}  // namespace

Json responses_request_schema() { return fields_schema<Draft>(kFields); }

ResponsesRequest parse_responses_request(std::string_view body) {
  Draft draft;
  draft.body = body;
  ResponsesRequest& request = draft.request;
  request.params.temperature = kOpenAiTemperature;
  request.echo = {{"background", false},
                  {"instructions", nullptr},
                  {"max_output_tokens", nullptr},
                  {"metadata", OrderedJson::object()},
                  {"parallel_tool_calls", true},
                  {"previous_response_id", nullptr},
                  {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
                  {"service_tier", "default"},
                  {"store", true},
                  {"temperature", request.params.temperature},
                  {"text", {{"format", {{"type", "text"}}}}},
                  {"tool_choice", "auto"},
                  {"tools", OrderedJson::array()},
                  {"top_logprobs", 0},
                  {"top_p", request.params.top_p},
                  {"truncation", "disabled"},
                  {"user", nullptr}};
  const Json values = parse_body(body);
  request.said = sampling_said(values);
  for (std::string& name : read_fields<Draft>(values, kFields, draft)) {
    request.ignored.push_back(std::move(name));
  }
  if (!draft.input) refuse_field("input", "input is missing", "input is required");
  check_tools(request.tools);
  if (draft.top_logprobs > 0) request.logprobs = true;
  if (request.logprobs) request.params.top_logprobs = draft.top_logprobs;
  return std::move(request);
}

}  // namespace mlxs
