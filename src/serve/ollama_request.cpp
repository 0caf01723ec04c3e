#include "serve/ollama_request.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "serve/json_text.h"

namespace mlxs {
namespace {

// Ollama's defaults, where the engine has others.
constexpr float kTemperature = 0.8f;
constexpr float kTopP = 0.9f;
constexpr int kTopK = 40;

constexpr double kMostKeepSeconds = 100.0 * 365 * 86400;  // a longer time is for ever too
constexpr std::chrono::nanoseconds kForEver{-1};

struct Draft {
  OllamaRequest request;
  std::string_view body;
  std::string prompt, system;
  bool raw = false;
  bool top_logprobs = false, logprobs = false;
};

std::chrono::nanoseconds from_seconds(double seconds) {
  if (seconds < 0 || seconds > kMostKeepSeconds) return kForEver;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
}

// "1h30m", "-1.5s"; nullopt: it is none.
std::optional<double> go_duration(std::string_view text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1e-9}, {"us", 1e-6}, {"µs", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
  const double sign = text.starts_with('-') ? -1 : 1;
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  double seconds = 0;
  while (!text.empty()) {
    double number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const std::string_view unit = text.substr(0, text.find_first_of("0123456789.+-"));
    const auto* known = std::ranges::find(kUnits, unit, &std::pair<std::string_view, double>::first);
    if (known == std::end(kUnits)) {
      // A number alone counts seconds, as clients that have only strings write it.
      return text.empty() && seconds == 0 ? std::optional(sign * number) : std::nullopt;
    }
    seconds += number * known->second;
    text.remove_prefix(unit.size());
  }
  return sign * seconds;
}

bool empty_string(const Json& value) {
  return value.is_string() && value.get_ref<const std::string&>().empty();
}

void set_format(Draft& draft, const Json& value) {
  auto& structured = draft.request.params.structured;
  if (empty_string(value)) return;
  if (value == "json") {
    structured = StructuredOutput{};
  } else if (value.is_object()) {
    // Read again: a schema's properties are generated in the order in which they stand.
    structured = {StructuredOutput::Kind::kJsonSchema, OrderedJson::parse(draft.body)["format"].dump()};
  } else {
    refuse_field("format", "format is not supported with this value", "use \"json\" or a JSON schema");
  }
}

void set_think(Draft& draft, const Json& value) {
  static constexpr std::array<std::string_view, 3> kEfforts{"low", "medium", "high"};
  if (value.is_boolean()) {
    draft.request.think = value.get<bool>();
  } else if (value.is_string() &&
             std::ranges::find(kEfforts, value.get_ref<const std::string&>()) != kEfforts.end()) {
    draft.request.think = true;
    draft.request.effort = value.get<std::string>();
  } else {
    refuse_field("think", "think is not supported with this value",
                 R"(use true, false, "low", "medium" or "high")");
  }
}

void set_options(Draft& draft, const Json& value) { read_ollama_options(draft.request, value); }

constexpr Field<Draft> kCommon[] = {
    {field::text("model", "A model on this disk, loaded if need be", R"({"minLength": 1})").required(),
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {field::flag("stream", "JSON lines as tokens come; true unless given"),
     [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {field::any("format", "json, or a JSON schema that the answer obeys",
                R"({"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]})"),
     set_format},
    {field::object("options", "How to generate", R"({"$ref": "#/components/schemas/OllamaOptions"})"),
     set_options},
    {field::any("think", "Whether, and how much, a thinking model thinks first",
                R"({"anyOf": [{"type": "boolean"}, {"enum": ["low", "medium", "high"]}]})"),
     set_think},
    {field::any(
         "keep_alive", "How long the model stays: seconds, or a duration such as 10m; negative: for ever",
         R"({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[-+]?[0-9]+(ns|us|ms|s|m|h)?$"}]})"),
     [](Draft& d, const Json& v) { d.request.keep_alive = read_keep_alive(v); }},
    {field::flag("logprobs", "Whether tokens come with their log probabilities"),
     [](Draft& d, const Json& v) { d.logprobs = v.get<bool>(); }},
    {field::integer("top_logprobs", 0, 20, "So many of the likeliest tokens beside each; with logprobs"),
     [](Draft& d, const Json& v) {
       d.top_logprobs = true;
       d.request.params.top_logprobs = static_cast<int>(as_integer("top_logprobs", v));
     }},
};

constexpr Field<Draft> kChat[] = {
    {field::list("messages", "The conversation so far; none: the model is loaded or unloaded",
                 R"({"items": {"$ref": "#/components/schemas/OllamaMessage"}})"),
     [](Draft& d, const Json&) {
       d.request.chat = read_ollama_messages(OrderedJson::parse(d.body)["messages"], d.request.ignored);
     }},
    {field::list("tools", "Functions that the model may call",
                 R"({"maxItems": 128, "items": {"$ref": "#/components/schemas/Tool"}})"),
     [](Draft& d, const Json&) { read_tools(d.request.tools, OrderedJson::parse(d.body)["tools"]); }},
};

template <std::size_t kSize>
struct Literal {
  constexpr Literal(const char (&literal)[kSize]) { std::copy_n(literal, kSize, text); }
  char text[kSize];
};
// Refused unless empty, false or 0: it would change the answer.
template <Literal kName, Literal kRemedy>
void unsupported(Draft&, const Json& value) {
  if (empty_string(value) || (value.is_array() && value.empty())) return;
  refuse_field(kName.text, fmt::format("{} is not supported", kName.text), kRemedy.text);
}

constexpr std::string_view kNothing = R"({"anyOf": [{"type": "null"}]})";

constexpr Field<Draft> kGenerate[] = {
    {field::text("prompt", "The text; none: the model is loaded or unloaded"),
     [](Draft& d, const Json& v) { d.prompt = v.get<std::string>(); }},
    {field::text("system", "The system prompt"),
     [](Draft& d, const Json& v) { d.system = v.get<std::string>(); }},
    {field::flag("raw", "Send the prompt as it is, without the model's template"),
     [](Draft& d, const Json& v) { d.raw = v.get<bool>(); }},
    {field::text("suffix", "Not supported", R"({"maxLength": 0})"),
     unsupported<"suffix", "no model here fills in the middle: put the text before the gap into prompt">},
    {field::text("template", "Not supported", R"({"maxLength": 0})"),
     unsupported<"template", "the model's own is used; raw sends text as it is">},
    {field::list("context", "Not supported: send messages", R"({"maxItems": 0})"),
     unsupported<"context", "send the conversation to /api/chat as messages">},
    {field::list("images", "Not supported", R"({"maxItems": 0})"),
     unsupported<"images", "the model reads text">},
    {field::any("width", "Not supported", kNothing), unsupported<"width", "images are not generated here">},
    {field::any("height", "Not supported", kNothing), unsupported<"height", "images are not generated here">},
    {field::any("steps", "Not supported", kNothing), unsupported<"steps", "images are not generated here">},
};

constexpr auto kChatFields = join_fields(kCommon, kChat);
constexpr auto kGenerateFields = join_fields(kCommon, kGenerate);

void finish_generate(Draft& draft) {
  OllamaRequest& request = draft.request;
  request.empty = draft.prompt.empty();
  request.verbatim = draft.raw;
  if (draft.raw && !draft.system.empty()) {
    refuse_field("system", "raw and system are both given", "raw sends the prompt alone: leave one out");
  }
  if (!draft.system.empty()) request.chat.messages.push_back({.role = "system", .content = draft.system});
  request.chat.messages.push_back({.role = "user", .content = draft.prompt});
  request.raw = std::move(draft.prompt);
}

}  // namespace

std::chrono::nanoseconds read_keep_alive(const Json& value) {
  if (value.is_number()) return from_seconds(value.get<double>());
  std::optional<double> seconds;
  if (value.is_string()) seconds = go_duration(value.get_ref<const std::string&>());
  if (!seconds) {
    refuse_field("keep_alive", fmt::format("keep_alive = {} is no duration", value.dump()),
                 R"(send seconds or a string like "10m"; negative: for ever, 0: unload at once)");
  }
  return from_seconds(*seconds);
}

Json ollama_chat_schema() { return fields_schema<Draft>(kChatFields); }
Json ollama_generate_schema() { return fields_schema<Draft>(kGenerateFields); }

OllamaRequest parse_ollama_request(std::string_view body, OllamaApi api) {
  Draft draft;
  draft.body = body;
  OllamaRequest& request = draft.request;
  request.params.temperature = kTemperature;
  request.params.top_p = kTopP;
  request.params.top_k = kTopK;
  const std::span<const Field<Draft>> fields =
      api == OllamaApi::kChat ? std::span<const Field<Draft>>(kChatFields) : kGenerateFields;
  for (const std::string& name : read_fields<Draft>(parse_body(body), fields, draft)) {
    request.ignored.push_back(name + " is not known and was ignored");
  }
  if (request.params.model.empty()) refuse_field("model", "model is missing or empty", "model is required");
  if (draft.top_logprobs && !draft.logprobs) {
    refuse_field("top_logprobs", "top_logprobs is given without logprobs", "set logprobs to true");
  }
  if (draft.logprobs && !draft.top_logprobs) request.params.top_logprobs = 0;
  if (api == OllamaApi::kGenerate) {
    finish_generate(draft);
  } else {
    request.empty = request.chat.messages.empty();
  }
  return std::move(request);
}

}  // namespace mlxs
