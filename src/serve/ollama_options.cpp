// Ollama's "options": one row each, and those that a server of many requests cannot give a single one.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "serve/ollama_request.h"

namespace mlxs {
namespace {

constexpr double kMostTokens = 1 << 24;
constexpr std::size_t kMostStops = 16;
constexpr double kLeastSeed = -9223372036854775808.0, kMostSeed = 9223372036854774784.0;  // of 64 bits

// They set how a model is loaded and computed; here the command line of `serve` does.
constexpr std::array<std::string_view, 14> kLoadTime{
    "numa",       "num_batch", "num_gpu",   "main_gpu",   "low_vram",       "f16_kv",   "logits_all",
    "vocab_only", "use_mmap",  "use_mlock", "num_thread", "embedding_only", "num_keep", "penalize_newline"};

int to_int(const Json& value) { return static_cast<int>(as_integer({}, value)); }

// Samplers that the engine does not have: refused, unless their value turns them off.
void only(std::string_view name, const Json& value, double off) {
  const std::string field = fmt::format("options.{}", name);
  check_value({.name = {}, .type = FieldType::kNumber}, field, value);
  if (value.get<double>() == off) return;
  refuse_field(field, fmt::format("{} = {} is not supported", field, value.dump()),
               fmt::format("leave it out, or send {}, which turns it off", off));
}

void set_stop(OllamaRequest& request, const Json& value) {
  const Json list = value.is_string() ? Json::array({value}) : value;
  check_value({.name = {}, .type = FieldType::kArray}, "options.stop", list);
  if (list.size() > kMostStops) {
    refuse_field("options.stop", fmt::format("options.stop has {} strings", list.size()),
                 fmt::format("at most {} are allowed", kMostStops));
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string path = fmt::format("options.stop[{}]", i);
    std::string text = as_string(path, list[i]);
    if (text.empty()) refuse_field("options.stop", path + " is empty", "every stop string needs a character");
    request.params.stop.push_back(std::move(text));
  }
}

// The penalty looks at the whole context: any smaller window would be another penalty.
void set_repeat_last_n(OllamaRequest& request, const Json& value) {
  if (as_integer("options.repeat_last_n", value) >= 0)
    request.ignored.emplace_back("options.repeat_last_n is ignored: repeat_penalty counts the whole context");
}

constexpr std::string_view kOne = R"({"anyOf": [{"const": 1}]})", kZero = R"({"anyOf": [{"const": 0}]})";

constexpr Field<OllamaRequest> kOptions[] = {
    {field::number("temperature", 0, 2, "0 is greedy; 0.8 unless given"),
     [](OllamaRequest& r, const Json& v) { r.params.temperature = v.get<float>(); }},
    {field::integer("top_k", -1, kMostTokens, "The k likeliest tokens; 40 unless given"),
     [](OllamaRequest& r, const Json& v) { r.params.top_k = std::max(0, to_int(v)); }},
    {field::number("top_p", 0, 1,
                   "The likeliest tokens that have this probability together; 0.9 unless given"),
     [](OllamaRequest& r, const Json& v) { r.params.top_p = v.get<float>(); }},
    {field::number("min_p", 0, 1, "Tokens with this share of the likeliest one's probability"),
     [](OllamaRequest& r, const Json& v) { r.params.min_p = v.get<float>(); }},
    {field::number("repeat_penalty", 0.01, 100, "Divides the scores of tokens of prompt and answer"),
     [](OllamaRequest& r, const Json& v) { r.params.repetition_penalty = v.get<float>(); }},
    {field::number("presence_penalty", -2, 2, "Subtracted once a token was generated"),
     [](OllamaRequest& r, const Json& v) { r.params.presence_penalty = v.get<float>(); }},
    {field::number("frequency_penalty", -2, 2, "Subtracted each time a token was generated"),
     [](OllamaRequest& r, const Json& v) { r.params.frequency_penalty = v.get<float>(); }},
    {field::integer("repeat_last_n", -kMostTokens, kMostTokens,
                    "Changes nothing: repeat_penalty counts the whole context"),
     set_repeat_last_n},
    {field::integer("seed", kLeastSeed, kMostSeed,
                    "Negative: another one each time"),  // negative: another one each time
     [](OllamaRequest& r, const Json& v) {
       const std::int64_t seed = as_integer("options.seed", v);
       if (seed >= 0) r.params.seed = static_cast<std::uint64_t>(seed);
     }},
    {field::integer(
         "num_predict", -2, kMostTokens,
         "Tokens of the answer; 0 and less: up to the context's end"),  // 0, -1, -2: up to the context's end
     [](OllamaRequest& r, const Json& v) {
       if (const int tokens = to_int(v); tokens > 0) r.params.max_tokens = tokens;
     }},
    {field::integer("num_ctx", 1, kMostTokens, "Tokens of prompt and answer"),
     [](OllamaRequest& r, const Json& v) { r.num_ctx = to_int(v); }},
    {field::any("stop", "Ends the answer, and is not part of it",
                R"({"anyOf": [{"type": "string", "minLength": 1},
                {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1}}]})"),
     set_stop},
    {field::any("typical_p", "Not supported: only the value that turns it off", kOne),
     [](OllamaRequest&, const Json& v) { only("typical_p", v, 1); }},
    {field::any("tfs_z", "Not supported: only the value that turns it off", kOne),
     [](OllamaRequest&, const Json& v) { only("tfs_z", v, 1); }},
    {field::any("mirostat", "Not supported: only the value that turns it off", kZero),
     [](OllamaRequest&, const Json& v) { only("mirostat", v, 0); }},
};

}  // namespace

Json ollama_options_schema() { return fields_schema<OllamaRequest>(kOptions); }

void read_ollama_options(OllamaRequest& request, const Json& options) {
  request.said = sampling_said(options);
  for (const auto& [name, value] : options.items()) {
    if (value.is_null()) continue;
    const std::string path = "options." + name;
    const auto* row =
        std::ranges::find_if(kOptions, [&](const auto& option) { return option.rule.name == name; });
    if (row == std::end(kOptions)) {
      const bool load_time = std::ranges::find(kLoadTime, name) != kLoadTime.end();
      request.ignored.push_back(path + (load_time ? " is ignored: the flags of serve say how a model runs"
                                                  : " is not known and was ignored"));
      continue;
    }
    check_value(row->rule, path, value);
    row->set(request, value);
  }
}

}  // namespace mlxs
