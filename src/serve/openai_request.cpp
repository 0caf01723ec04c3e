#include "serve/openai_request.h"

#include <fmt/format.h>

#include <optional>

#include "serve/chat_messages.h"
#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/metadata_field.h"
#include "serve/openai_values.h"
#include "serve/qos_headers.h"
#include "serve/structured_fields.h"
#include "serve/token_list.h"

namespace mlxs {
namespace {

// While parsing: what must be compared once all fields are known.
struct Draft {
  std::string_view body;
  OpenAiRequest request;
  std::optional<int> max_completion_tokens;
  std::optional<int> top_logprobs;
  std::optional<int> best_of;
  std::int64_t n = 1;
  std::optional<RequestPriority> tier_priority;  // of service_tier
  bool priority_given = false;
  bool stream_options = false;
  bool prompt_given = false;
  std::string template_variables;
};

constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxTop = 20;
constexpr double kLeastSeed = -9223372036854775808.0, kMostSeed = 18446744073709551615.0;

int to_int(const Json& value) { return static_cast<int>(as_integer({}, value)); }
float to_float(const Json& value) { return value.get<float>(); }

[[noreturn]] void refuse_unsupported(std::string_view field) {
  refuse_field(field, fmt::format("{} is not supported", field), "leave it out");
}

// ---------------------------------------------------------------- fields of both

void set_stream_options(Draft& draft, const Json& value) {
  draft.stream_options = true;
  static constexpr Field<Draft> kFields[] = {
      {{"include_usage", FieldType::kBoolean},
       [](Draft& d, const Json& v) { d.request.include_usage = v.get<bool>(); }},
  };
  for (const std::string& name : read_fields<Draft>(value, kFields, draft)) {
    draft.request.ignored.push_back("stream_options." + name);
  }
}

void set_priority(Draft& draft, const Json& value) {
  draft.request.params.priority = parse_priority("priority", value.get_ref<const std::string&>());
  draft.priority_given = true;
}

// OpenAI's way to pay for time: an explicit priority is more precise and wins.
void set_service_tier(Draft& draft, const Json& value) {
  draft.tier_priority = service_tier_priority(value.get_ref<const std::string&>());
}

// vLLM's field. An empty one would keep nothing apart, against what its sender asks for.
void set_cache_salt(Draft& draft, const Json& value) {
  draft.request.params.cache_salt = value.get<std::string>();
  if (draft.request.params.cache_salt.empty()) {
    refuse_field("cache_salt", "cache_salt is empty", "give it a character, or leave it out");
  }
}

void set_structured(Draft& draft, std::string_view field, std::optional<StructuredOutput> structured) {
  if (!structured) return;
  OpenAiRequest& request = draft.request;
  if (request.params.structured) {
    refuse_field(field, fmt::format("{} and {} are both given", request.structured_field, field),
                 "send one of them");
  }
  request.params.structured = std::move(structured);
  request.structured_field = field;
}

// vLLM's names before structured_outputs.
template <std::size_t kSize>
struct Literal {
  constexpr Literal(const char (&literal)[kSize]) { std::copy_n(literal, kSize, text); }
  char text[kSize];
};
template <Literal kName>
void guided(Draft& draft, const Json& value) {
  const std::string field = fmt::format("guided_{}", kName.text);
  set_structured(draft, field, read_constraint(kName.text, field, value));
}

constexpr std::array<std::string_view, 4> kPriorities{"critical", "high", "normal", "low"};
constexpr std::array<std::string_view, 4> kTiers{"auto", "default", "flex", "priority"};
constexpr std::array<std::string_view, 3> kRetentions{"in_memory", "in-memory", "24h"};
constexpr std::array<std::string_view, 6> kEfforts{"none", "minimal", "low", "medium", "high", "xhigh"};

constexpr std::string_view kSchemaSchema =
    R"({"anyOf": [{"type": "object"}, {"type": "boolean"}, {"type": "string"}]})";
constexpr Field<Draft> kCommonFields[] = {
    {field::text("model", "A loaded model; may be left out while there is one"),
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {field::flag("stream", "Server-sent events as tokens come, instead of one document"),
     [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {field::object("stream_options", "Only with stream",
                   R"({"properties": {"include_usage": {"type": ["boolean", "null"],
                       "description": "A last chunk with the usage"}}})"),
     set_stream_options},
    {field::integer("max_tokens", 1, kMaxTokens, "Tokens of the answer, at most"),
     [](Draft& d, const Json& v) { d.request.params.max_tokens = to_int(v); }},
    {field::integer("n", 1, kMostChoices, "Answers to each prompt; at most 128 unless configured otherwise")
         .bounded_by_parser(),
     [](Draft& d, const Json& v) { d.n = as_integer("n", v); }},
    {field::number("temperature", 0, 2, "0 is greedy; 1 unless given"),
     [](Draft& d, const Json& v) { d.request.params.temperature = to_float(v); }},
    {field::number("top_p", 0, 1, "The likeliest tokens that have this probability together"),
     [](Draft& d, const Json& v) { d.request.params.top_p = to_float(v); }},
    {field::integer("top_k", -1, kMaxTokens, "The k likeliest tokens; 0 and -1: all"),  // -1 is vLLM's
     [](Draft& d, const Json& v) { d.request.params.top_k = std::max(0, to_int(v)); }},
    {field::number("min_p", 0, 1, "Tokens with this share of the likeliest one's probability"),
     [](Draft& d, const Json& v) { d.request.params.min_p = to_float(v); }},
    {field::number("presence_penalty", -2, 2, "Subtracted once a token was generated"),
     [](Draft& d, const Json& v) { d.request.params.presence_penalty = to_float(v); }},
    {field::number("frequency_penalty", -2, 2, "Subtracted each time a token was generated"),
     [](Draft& d, const Json& v) { d.request.params.frequency_penalty = to_float(v); }},
    {field::number("repetition_penalty", 0.01, 100, "Divides the scores of tokens of prompt and answer"),
     [](Draft& d, const Json& v) { d.request.params.repetition_penalty = to_float(v); }},
    {field::integer("seed", kLeastSeed, kMostSeed, "Choice i is drawn with seed + i"),
     [](Draft& d, const Json& v) {
       d.request.params.seed = v.is_number_unsigned() ? v.get<std::uint64_t>()
                                                      : static_cast<std::uint64_t>(as_integer("seed", v));
     }},
    {field::any("stop", "Ends the answer, and is not part of it", kStopSchema),
     [](Draft& d, const Json& v) { d.request.params.stop = read_stop(v); }},
    {field::list("stop_token_ids", "Tokens that end the answer",
                 R"({"items": {"type": "integer", "minimum": 0, "maximum": 2147483647}})"),
     [](Draft& d, const Json& v) { d.request.params.stop_token_ids = read_tokens("stop_token_ids", v); }},
    {field::object("logit_bias", "Token ids, each with what is added to its score", kBiasSchema),
     [](Draft& d, const Json& v) { d.request.params.logit_bias = read_logit_bias(v); }},
    {field::flag("ignore_eos", "Go on where the model would end"),
     [](Draft& d, const Json& v) { d.request.params.ignore_eos = v.get<bool>(); }},
    {field::object("response_format", "What the answer must be",
                   R"({"$ref": "#/components/schemas/ResponseFormat"})"),
     [](Draft& d, const Json& v) { set_structured(d, "response_format", read_response_format(v)); }},
    {field::object("structured_outputs", "What the answer must be, in vLLM's words: one of these",
                   R"({"minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": {
                       "json": {"anyOf": [{"type": "object"}, {"type": "boolean"}, {"type": "string"}]},
                       "json_object": {"const": true}, "regex": {"type": "string"}, "grammar": {"type": "string"},
                       "choice": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}}})"),
     [](Draft& d, const Json& v) { set_structured(d, "structured_outputs", read_structured_outputs(v)); }},
    {field::any("guided_json", "An older name of structured_outputs.json", kSchemaSchema), guided<"json">},
    {field::text("guided_regex", "An older name of structured_outputs.regex"), guided<"regex">},
    {field::list("guided_choice", "An older name of structured_outputs.choice",
                 R"({"minItems": 1, "items": {"type": "string", "minLength": 1}})"),
     guided<"choice">},
    {field::text("guided_grammar", "An older name of structured_outputs.grammar"), guided<"grammar">},
    {field::choice("priority", kPriorities, "Who starts first and is preempted last"), set_priority},
    {field::choice("service_tier", kTiers, "The priority in OpenAI's words: priority is high, flex is low"),
     set_service_tier},
    {field::text("cache_salt", "Computed prompts are shared only among requests where this is equal",
                 R"({"minLength": 1})"),
     set_cache_salt},
    // A hint that sends equal keys to one machine's cache: here there is one, and every request uses it.
    {field::text("prompt_cache_key", "Chooses among machines: here there is one"),
     [](Draft&, const Json&) {}},
    {field::choice(
         "prompt_cache_retention", kRetentions,
         "24h: what begins the prompt stays computed when nobody uses it, as long as serve lets it"),
     [](Draft& d, const Json& v) { d.request.params.pin_prompt = v.get<std::string>() == "24h"; }},
    {field::number("slo_ttft_ms", 1, kLongestSloMs, "Wanted: milliseconds to the first token"),
     [](Draft& d, const Json& v) { d.request.params.slo_ttft_ms = v.get<double>(); }},
    {field::number("slo_tpot_ms", 1, kLongestSloMs, "Wanted: milliseconds of every later token"),
     [](Draft& d, const Json& v) { d.request.params.slo_tpot_ms = v.get<double>(); }},
    {field::text("user", "A label of the tenant, where nobody is asked for a key"),
     [](Draft& d, const Json& v) { d.request.params.user = v.get<std::string>(); }},
    {kMetadataRule, [](Draft& d, const Json& v) { d.request.metadata = read_metadata(v); }},
};

// ---------------------------------------------------------------- chat

void set_messages(Draft& draft, const Json& value) {
  draft.request.prompts.emplace_back(read_messages(value, draft.request.ignored));
  draft.prompt_given = true;
}

// Fields that would change the answer: refused, unless their value asks for what happens anyway.
void only_empty(std::string_view field, const Json& value) {
  if (!value.empty()) refuse_unsupported(field);
}

constexpr Field<Draft> kChatFields[] = {
    {field::list("messages", "The conversation so far",
                 R"({"minItems": 1, "items": {"$ref": "#/components/schemas/ChatMessage"}})")
         .required(),
     set_messages},
    {field::integer("max_completion_tokens", 1, kMaxTokens, "The newer name of max_tokens"),
     [](Draft& d, const Json& v) { d.max_completion_tokens = to_int(v); }},
    {field::flag("logprobs", "Whether tokens come with their log probabilities"),
     [](Draft& d, const Json& v) { d.request.logprobs = v.get<bool>(); }},
    {field::integer("top_logprobs", 0, kMaxTop, "So many of the likeliest tokens beside each; with logprobs"),
     [](Draft& d, const Json& v) { d.top_logprobs = to_int(v); }},
    {field::list("modalities", "Text", R"({"minItems": 1, "maxItems": 1, "items": {"const": "text"}})"),
     [](Draft&, const Json& v) {
       if (v != Json::array({"text"}))
         refuse_field("modalities", "modalities other than text are not supported", "use [\"text\"]");
     }},
    {field::list("tools", "Functions that the model may call",
                 R"({"maxItems": 128, "items": {"$ref": "#/components/schemas/Tool"}})"),
     [](Draft& d, const Json&) { read_tools(d.request.tools, OrderedJson::parse(d.body)["tools"]); }},
    {field::any("tool_choice", "Whether it must call one, and which it may",
                R"({"anyOf": [{"$ref": "#/components/schemas/ToolChoice"}]})"),
     [](Draft& d, const Json& v) { read_tool_choice(d.request.tools, v); }},
    {field::flag("parallel_tool_calls", "Whether it may call several at once; true unless given"),
     [](Draft& d, const Json& v) { d.request.tools.parallel = v.get<bool>(); }},
    {field::choice("reasoning_effort", kEfforts, "How much a thinking model thinks first"),
     [](Draft& d, const Json& v) {
       d.request.thinking = read_effort("reasoning_effort", v.get_ref<const std::string&>());
     }},
    {field::object("chat_template_kwargs", "Further variables of the model's template"),
     [](Draft& d, const Json& v) { d.template_variables = v.dump(); }},
    {field::flag("store", "Only warns if true: chat completions are not stored"),
     [](Draft& d, const Json& v) {
       if (v.get<bool>()) d.request.ignored.emplace_back("store");
     }},
    {field::list("functions", "Not supported: the older form of tools", R"({"maxItems": 0})"),
     [](Draft&, const Json& v) { only_empty("functions", v); }},
    {field::object("audio", "Not supported", R"({"not": {"type": "object"}})"),
     [](Draft&, const Json&) { refuse_unsupported("audio"); }},
};

// ---------------------------------------------------------------- completions

constexpr Field<Draft> kCompletionFields[] = {
    {field::any("prompt", "A text, token ids, or a list of either", kPromptSchema).required(),
     [](Draft& d, const Json& v) {
       d.request.prompts = read_prompts(v);
       d.prompt_given = true;
     }},
    {field::integer("logprobs", 0, kMaxTop, "Log probabilities, and so many of the likeliest tokens"),
     [](Draft& d, const Json& v) {
       d.request.logprobs = true;
       d.top_logprobs = to_int(v);
     }},
    {field::integer("best_of", 1, kMostChoices, "Must equal n"),
     [](Draft& d, const Json& v) { d.best_of = to_int(v); }},
    {field::flag("echo", "The prompt stands before the answer; not with logprobs"),
     [](Draft& d, const Json& v) { d.request.echo = v.get<bool>(); }},
    {field::text("suffix", "Not supported: no model here fills in the middle", R"({"maxLength": 0})"),
     [](Draft&, const Json& v) {
       if (!v.get_ref<const std::string&>().empty()) refuse_unsupported("suffix");
     }},
};

// ---------------------------------------------------------------- both

constexpr auto kChat = join_fields(kCommonFields, kChatFields);
constexpr auto kCompletion = join_fields(kCommonFields, kCompletionFields);

// A schema's properties are generated in the order in which they stand; Json sorts them, so they are read
// again.
void keep_property_order(std::string_view body, OpenAiRequest& request) {
  if (!request.params.structured || request.params.structured->kind != StructuredOutput::Kind::kJsonSchema) {
    return;
  }
  using Ordered = nlohmann::ordered_json;
  const std::string path = request.structured_field == "response_format"
                               ? "/response_format/json_schema/schema"
                           : request.structured_field == "structured_outputs" ? "/structured_outputs/json"
                                                                              : "/guided_json";
  const Ordered whole = Ordered::parse(body);
  const Ordered::json_pointer pointer(path);
  if (whole.contains(pointer) && whole.at(pointer).is_object()) {
    request.params.structured->text = whole.at(pointer).dump();
  }
}

Draft read(std::string_view body, std::span<const Field<Draft>> fields, std::string_view prompt_field,
           int most_choices) {
  Draft draft;
  draft.body = body;
  draft.request.params.temperature = kOpenAiTemperature;
  const Json values = parse_body(body);
  draft.request.said = sampling_said(values);
  for (std::string& name : read_fields<Draft>(values, fields, draft)) {
    draft.request.ignored.push_back(std::move(name));
  }
  if (!draft.prompt_given) {
    refuse_field(prompt_field, fmt::format("{} is missing", prompt_field),
                 fmt::format("{} is required", prompt_field));
  }
  if (draft.n < 1 || draft.n > most_choices) {
    refuse_field("n", fmt::format("n = {} is out of range", draft.n),
                 fmt::format("n must be 1 … {}: what one request may ask for and the queue can hold "
                             "(max_choices, max_active_streams, max_queue_depth)",
                             most_choices));
  }
  draft.request.n = static_cast<int>(draft.n);
  if (draft.stream_options && !draft.request.stream) {
    refuse_field("stream_options", "stream_options is given without stream",
                 "set stream to true, or leave it out");
  }
  if (draft.request.logprobs) draft.request.params.top_logprobs = draft.top_logprobs.value_or(0);
  keep_property_order(body, draft.request);
  if (draft.tier_priority && !draft.priority_given) draft.request.params.priority = *draft.tier_priority;
  return draft;
}

}  // namespace

std::optional<RequestPriority> service_tier_priority(std::string_view tier) {
  if (tier == "flex") return RequestPriority::kLow;
  if (tier == "priority") return RequestPriority::kHigh;
  if (tier == "auto" || tier == "default") return std::nullopt;
  refuse_field("service_tier", fmt::format("service_tier = '{}' is not supported", tier),
               "use auto, default, flex or priority");
}

Json chat_request_schema() { return fields_schema<Draft>(kChat); }
Json completion_request_schema() { return fields_schema<Draft>(kCompletion); }

OpenAiRequest parse_chat_request(std::string_view body, int most_choices) {
  Draft draft = read(body, kChat, "messages", most_choices);
  OpenAiRequest& request = draft.request;
  check_tools(request.tools);
  std::get<ChatPrompt>(request.prompts.front()).variables_json = std::move(draft.template_variables);
  if (draft.top_logprobs && !request.logprobs) {
    refuse_field("top_logprobs", "top_logprobs is given without logprobs", "set logprobs to true");
  }
  if (draft.max_completion_tokens) {
    if (request.params.max_tokens && request.params.max_tokens != draft.max_completion_tokens) {
      refuse_field("max_completion_tokens", "max_tokens and max_completion_tokens differ",
                   "send one of them");
    }
    request.params.max_tokens = draft.max_completion_tokens;
    request.max_tokens_field = "max_completion_tokens";
  }
  return std::move(request);
}

OpenAiRequest parse_completion_request(std::string_view body, int most_choices) {
  Draft draft = read(body, kCompletion, "prompt", most_choices);
  OpenAiRequest& request = draft.request;
  if (draft.best_of && *draft.best_of != request.n) {
    refuse_field("best_of",
                 fmt::format("best_of = {} with n = {} is not supported", *draft.best_of, request.n),
                 "best_of must equal n");
  }
  if (request.echo && request.logprobs) {
    refuse_field("echo", "echo and logprobs are both given",
                 "leave one out: the probabilities of a prompt are not computed");
  }
  if (!request.params.max_tokens) request.params.max_tokens = kCompletionMaxTokens;
  return std::move(request);
}

}  // namespace mlxs
