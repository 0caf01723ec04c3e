#include "serve/openai_request.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "serve/chat_messages.h"
#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/qos_headers.h"
#include "serve/structured_fields.h"

namespace mlxs {
namespace {

// While parsing: what must be compared once all fields are known.
struct Draft {
  std::string_view body;
  OpenAiRequest request;
  std::optional<int> max_completion_tokens;
  std::optional<int> top_logprobs;
  std::optional<int> best_of;
  std::optional<RequestPriority> tier_priority;  // of service_tier
  bool priority_given = false;
  bool stream_options = false;
  bool prompt_given = false;
  std::string template_variables;
};

constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxChoices = 1 << 16;
constexpr double kMaxTop = 20;

int to_int(const Json& value) { return static_cast<int>(as_integer({}, value)); }
float to_float(const Json& value) { return value.get<float>(); }

[[noreturn]] void refuse_unsupported(std::string_view field) {
  refuse_field(field, fmt::format("{} is not supported", field), "leave it out");
}

std::int32_t to_token(std::string_view path, const Json& value) {
  check_value({.name = {}, .type = FieldType::kInteger, .minimum = 0, .maximum = INT32_MAX}, path, value);
  return static_cast<std::int32_t>(as_integer(path, value));
}

std::vector<std::int32_t> to_tokens(const std::string& path, const Json& list) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& value = list[i];
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT32_MAX) {
      tokens.push_back(
          to_token(fmt::format("{}[{}]", path, i), value));  // names the element if it refuses it
    } else {
      tokens.push_back(value.get<std::int32_t>());
    }
  }
  return tokens;
}

// ---------------------------------------------------------------- fields of both

void set_stop(Draft& draft, const Json& value) {
  auto& stop = draft.request.params.stop;
  if (value.is_string()) {
    stop.push_back(value.get<std::string>());
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i)
      stop.push_back(as_string(fmt::format("stop[{}]", i), value[i]));
  } else {
    refuse_field("stop", "stop has the wrong type", "stop must be a string or an array of strings");
  }
  for (const std::string& text : stop) {
    if (text.empty()) refuse_field("stop", "stop has an empty string", "every stop string needs a character");
  }
}

// {"token id": bias}
void set_logit_bias(Draft& draft, const Json& value) {
  for (const auto& [key, bias] : value.items()) {
    const std::string path = fmt::format("logit_bias.{}", key);
    std::int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0) {
      refuse_field("logit_bias", fmt::format("logit_bias has the key '{}'", key),
                   "keys must be token ids as decimal strings");
    }
    check_value({.name = {}, .type = FieldType::kNumber, .minimum = -100, .maximum = 100}, path, bias);
    draft.request.params.logit_bias.emplace_back(token, to_float(bias));
  }
}

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

constexpr Field<Draft> kCommonFields[] = {
    {{"model", FieldType::kString},
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {{"stream", FieldType::kBoolean}, [](Draft& d, const Json& v) { d.request.stream = v.get<bool>(); }},
    {{"stream_options", FieldType::kObject}, set_stream_options},
    {{"max_tokens", FieldType::kInteger, 1, kMaxTokens},
     [](Draft& d, const Json& v) { d.request.params.max_tokens = to_int(v); }},
    {{"n", FieldType::kInteger, 1, kMaxChoices}, [](Draft& d, const Json& v) { d.request.n = to_int(v); }},
    {{"temperature", FieldType::kNumber, 0, 2},
     [](Draft& d, const Json& v) { d.request.params.temperature = to_float(v); }},
    {{"top_p", FieldType::kNumber, 0, 1},
     [](Draft& d, const Json& v) { d.request.params.top_p = to_float(v); }},
    {{"top_k", FieldType::kInteger, -1, kMaxTokens},  // -1 is off in vLLM's words
     [](Draft& d, const Json& v) { d.request.params.top_k = std::max(0, to_int(v)); }},
    {{"min_p", FieldType::kNumber, 0, 1},
     [](Draft& d, const Json& v) { d.request.params.min_p = to_float(v); }},
    {{"presence_penalty", FieldType::kNumber, -2, 2},
     [](Draft& d, const Json& v) { d.request.params.presence_penalty = to_float(v); }},
    {{"frequency_penalty", FieldType::kNumber, -2, 2},
     [](Draft& d, const Json& v) { d.request.params.frequency_penalty = to_float(v); }},
    {{"repetition_penalty", FieldType::kNumber, 0.01, 100},
     [](Draft& d, const Json& v) { d.request.params.repetition_penalty = to_float(v); }},
    {{"seed", FieldType::kInteger},
     [](Draft& d, const Json& v) {
       d.request.params.seed = v.is_number_unsigned() ? v.get<std::uint64_t>()
                                                      : static_cast<std::uint64_t>(as_integer("seed", v));
     }},
    {{"stop", FieldType::kAny}, set_stop},
    {{"stop_token_ids", FieldType::kArray},
     [](Draft& d, const Json& v) { d.request.params.stop_token_ids = to_tokens("stop_token_ids", v); }},
    {{"logit_bias", FieldType::kObject}, set_logit_bias},
    {{"ignore_eos", FieldType::kBoolean},
     [](Draft& d, const Json& v) { d.request.params.ignore_eos = v.get<bool>(); }},
    {{"response_format", FieldType::kObject},
     [](Draft& d, const Json& v) { set_structured(d, "response_format", read_response_format(v)); }},
    {{"structured_outputs", FieldType::kObject},
     [](Draft& d, const Json& v) { set_structured(d, "structured_outputs", read_structured_outputs(v)); }},
    {{"guided_json", FieldType::kAny}, guided<"json">},
    {{"guided_regex", FieldType::kString}, guided<"regex">},
    {{"guided_choice", FieldType::kArray}, guided<"choice">},
    {{"guided_grammar", FieldType::kString}, guided<"grammar">},
    {{"priority", FieldType::kString}, set_priority},
    {{"service_tier", FieldType::kString}, set_service_tier},
    {{"cache_salt", FieldType::kString}, set_cache_salt},
    // A hint that sends equal keys to one machine's cache: here there is one, and every request uses it.
    {{"prompt_cache_key", FieldType::kString}, [](Draft&, const Json&) {}},
    {{"slo_ttft_ms", FieldType::kNumber, 1, kLongestSloMs},
     [](Draft& d, const Json& v) { d.request.params.slo_ttft_ms = v.get<double>(); }},
    {{"slo_tpot_ms", FieldType::kNumber, 1, kLongestSloMs},
     [](Draft& d, const Json& v) { d.request.params.slo_tpot_ms = v.get<double>(); }},
    {{"user", FieldType::kString},
     [](Draft& d, const Json& v) { d.request.params.user = v.get<std::string>(); }},
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
    {{"messages", FieldType::kArray}, set_messages},
    {{"max_completion_tokens", FieldType::kInteger, 1, kMaxTokens},
     [](Draft& d, const Json& v) { d.max_completion_tokens = to_int(v); }},
    {{"logprobs", FieldType::kBoolean}, [](Draft& d, const Json& v) { d.request.logprobs = v.get<bool>(); }},
    {{"top_logprobs", FieldType::kInteger, 0, kMaxTop},
     [](Draft& d, const Json& v) { d.top_logprobs = to_int(v); }},
    {{"modalities", FieldType::kArray},
     [](Draft&, const Json& v) {
       if (v != Json::array({"text"}))
         refuse_field("modalities", "modalities other than text are not supported", "use [\"text\"]");
     }},
    {{"tools", FieldType::kArray},
     [](Draft& d, const Json&) { read_tools(d.request.tools, OrderedJson::parse(d.body)["tools"]); }},
    {{"tool_choice", FieldType::kAny}, [](Draft& d, const Json& v) { read_tool_choice(d.request.tools, v); }},
    {{"parallel_tool_calls", FieldType::kBoolean},
     [](Draft& d, const Json& v) { d.request.tools.parallel = v.get<bool>(); }},
    {{"reasoning_effort", FieldType::kString},
     [](Draft& d, const Json& v) {
       d.request.thinking = read_effort("reasoning_effort", v.get_ref<const std::string&>());
     }},
    {{"chat_template_kwargs", FieldType::kObject},
     [](Draft& d, const Json& v) { d.template_variables = v.dump(); }},
    {{"functions", FieldType::kArray}, [](Draft&, const Json& v) { only_empty("functions", v); }},
    {{"audio", FieldType::kObject}, [](Draft&, const Json&) { refuse_unsupported("audio"); }},
};

// ---------------------------------------------------------------- completions

void set_prompt(Draft& draft, const Json& value) {
  auto& prompts = draft.request.prompts;
  draft.prompt_given = true;
  if (value.is_string()) {
    prompts.emplace_back(value.get<std::string>());
    return;
  }
  if (!value.is_array() || value.empty()) {
    refuse_field("prompt", value.is_array() ? "prompt is empty" : "prompt has the wrong type",
                 "prompt must be a string, an array of strings, an array of token ids, or an array of those");
  }
  if (value[0].is_number()) {
    prompts.emplace_back(TokenPrompt{to_tokens("prompt", value)});
    return;
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("prompt[{}]", i);
    if (value[0].is_array()) {
      check_value({.name = {}, .type = FieldType::kArray}, path, value[i]);
      prompts.emplace_back(TokenPrompt{to_tokens(path, value[i])});
    } else {
      prompts.emplace_back(as_string(path, value[i]));
    }
  }
}

constexpr Field<Draft> kCompletionFields[] = {
    {{"prompt", FieldType::kAny}, set_prompt},
    {{"logprobs", FieldType::kInteger, 0, kMaxTop},
     [](Draft& d, const Json& v) {
       d.request.logprobs = true;
       d.top_logprobs = to_int(v);
     }},
    {{"best_of", FieldType::kInteger, 1, kMaxChoices},
     [](Draft& d, const Json& v) { d.best_of = to_int(v); }},
    {{"echo", FieldType::kBoolean},
     [](Draft&, const Json& v) {
       if (v.get<bool>())
         refuse_field("echo", "echo is not supported", "put the prompt before the answer yourself");
     }},
    {{"suffix", FieldType::kString},
     [](Draft&, const Json& v) {
       if (!v.get_ref<const std::string&>().empty()) refuse_unsupported("suffix");
     }},
};

// ---------------------------------------------------------------- both

template <std::size_t kCommon, std::size_t kOwn>
constexpr auto join(const Field<Draft> (&common)[kCommon], const Field<Draft> (&own)[kOwn]) {
  std::array<Field<Draft>, kCommon + kOwn> all{};
  std::copy(common, common + kCommon, all.begin());
  std::copy(own, own + kOwn, all.begin() + kCommon);
  return all;
}

constexpr auto kChat = join(kCommonFields, kChatFields);
constexpr auto kCompletion = join(kCommonFields, kCompletionFields);

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

Draft read(std::string_view body, std::span<const Field<Draft>> fields, std::string_view prompt_field) {
  Draft draft;
  draft.body = body;
  draft.request.params.temperature = kOpenAiTemperature;
  for (std::string& name : read_fields<Draft>(parse_body(body), fields, draft)) {
    draft.request.ignored.push_back(std::move(name));
  }
  if (!draft.prompt_given) {
    refuse_field(prompt_field, fmt::format("{} is missing", prompt_field),
                 fmt::format("{} is required", prompt_field));
  }
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

OpenAiRequest parse_chat_request(std::string_view body) {
  Draft draft = read(body, kChat, "messages");
  OpenAiRequest& request = draft.request;
  check_tools(request.tools);
  if (request.tools.active() && request.params.structured) {
    refuse_field(request.structured_field,
                 fmt::format("{} and tools are both given", request.structured_field),
                 "send one of them, or set tool_choice to \"none\"");
  }
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

OpenAiRequest parse_completion_request(std::string_view body) {
  Draft draft = read(body, kCompletion, "prompt");
  OpenAiRequest& request = draft.request;
  if (draft.best_of && *draft.best_of != request.n) {
    refuse_field("best_of",
                 fmt::format("best_of = {} with n = {} is not supported", *draft.best_of, request.n),
                 "best_of must equal n");
  }
  if (!request.params.max_tokens) request.params.max_tokens = kCompletionMaxTokens;
  return std::move(request);
}

}  // namespace mlxs
