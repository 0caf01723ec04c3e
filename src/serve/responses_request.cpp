#include "serve/responses_request.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "serve/json_text.h"
#include "serve/openai_request.h"
#include "serve/structured_fields.h"

namespace mlxs {
namespace {

constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxTop = 20;
constexpr std::size_t kMostMetadata = 16, kLongestKey = 64, kLongestValue = 512;

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
  Json choice = value;
  if (value.is_object() && value.value("type", Json()) == "function") {
    choice = {{"type", "function"}, {"function", {{"name", value.value("name", Json())}}}};
  }
  read_tool_choice(draft.request.tools, choice);
  draft.request.echo["tool_choice"] = value;
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
  if (value.size() > kMostMetadata)
    refuse_field("metadata", fmt::format("metadata has {} members", value.size()), "at most 16 are allowed");
  for (const auto& [name, member] : value.items()) {
    const std::string text = as_string("metadata." + name, member);
    if (name.size() > kLongestKey || text.size() > kLongestValue)
      refuse_field("metadata", "metadata has a name over 64 or a value over 512 bytes", "shorten it");
  }
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

constexpr Field<Draft> kFields[] = {
    {{"model", FieldType::kString},
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {{"input", FieldType::kAny},
     [](Draft& d, const Json&) {
       d.input = true;
       read_responses_input(d.request, ordered(d, "input"));
     }},
    {{"instructions", FieldType::kString},
     [](Draft& d, const Json& v) {
       d.request.instructions = v.get<std::string>();
       d.request.echo["instructions"] = v;
     }},
    {{"previous_response_id", FieldType::kString},
     [](Draft& d, const Json& v) {
       d.request.previous_id = v.get<std::string>();
       d.request.echo["previous_response_id"] = v;
     }},
    {{"max_output_tokens", FieldType::kInteger, 1, kMaxTokens},
     [](Draft& d, const Json& v) {
       d.request.params.max_tokens = static_cast<int>(as_integer("max_output_tokens", v));
       d.request.echo["max_output_tokens"] = v;
     }},
    {{"temperature", FieldType::kNumber, 0, 2},
     [](Draft& d, const Json& v) {
       d.request.params.temperature = v.get<float>();
       d.request.echo["temperature"] = v;
     }},
    {{"top_p", FieldType::kNumber, 0, 1},
     [](Draft& d, const Json& v) {
       d.request.params.top_p = v.get<float>();
       d.request.echo["top_p"] = v;
     }},
    {{"top_logprobs", FieldType::kInteger, 0, kMaxTop},
     [](Draft& d, const Json& v) {
       d.top_logprobs = static_cast<int>(as_integer("top_logprobs", v));
       d.request.echo["top_logprobs"] = v;
     }},
    {{"stream", FieldType::kBoolean}, [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {{"store", FieldType::kBoolean},
     [](Draft& d, const Json& v) {
       d.request.store = v.get<bool>();
       d.request.echo["store"] = v;
     }},
    {{"tools", FieldType::kArray}, set_tools},
    {{"tool_choice", FieldType::kAny}, set_tool_choice},
    {{"parallel_tool_calls", FieldType::kBoolean},
     [](Draft& d, const Json& v) {
       d.request.tools.parallel = v.get<bool>();
       d.request.echo["parallel_tool_calls"] = v;
     }},
    {{"text", FieldType::kObject}, set_text},
    {{"reasoning", FieldType::kObject}, set_reasoning},
    {{"metadata", FieldType::kObject}, set_metadata},
    {{"include", FieldType::kArray}, set_include},
    {{"service_tier", FieldType::kString}, set_service_tier},
    {{"user", FieldType::kString},
     [](Draft& d, const Json& v) {
       d.request.params.user = v.get<std::string>();
       d.request.echo["user"] = v;
     }},
    {{"truncation", FieldType::kString},
     [](Draft&, const Json& v) {
       if (v != "disabled")
         refuse_field("truncation", "truncation = " + v.dump() + " is not supported",
                      "use \"disabled\": a prompt is never truncated for you");
     }},
    {{"background", FieldType::kBoolean},
     [](Draft&, const Json& v) {
       if (v.get<bool>()) refuse("background");
     }},
    {{"conversation", FieldType::kAny}, [](Draft&, const Json&) { refuse("conversation"); }},
    {{"prompt", FieldType::kAny}, [](Draft&, const Json&) { refuse("prompt"); }},
};

}  // namespace

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
  for (std::string& name : read_fields<Draft>(parse_body(body), kFields, draft)) {
    request.ignored.push_back(std::move(name));
  }
  if (!draft.input) refuse_field("input", "input is missing", "input is required");
  check_tools(request.tools);
  if (request.tools.active() && request.params.structured) {
    refuse_field("text.format", "text.format and tools are both given",
                 "send one of them, or set tool_choice to \"none\"");
  }
  if (draft.top_logprobs > 0) request.logprobs = true;
  if (request.logprobs) request.params.top_logprobs = draft.top_logprobs;
  return std::move(request);
}

}  // namespace mlxs
