#include "serve/ollama_embed.h"

#include <fmt/format.h>

#include <chrono>
#include <climits>
#include <numeric>
#include <utility>

#include "serve/embeddings.h"
#include "serve/encode_feed.h"
#include "serve/encoder_fields.h"
#include "serve/json_text.h"
#include "serve/ollama_format.h"
#include "serve/ollama_request.h"

namespace mlxs {
namespace {

struct Draft {
  EncodeParams params;
  KeepAlive keep_alive;
  std::optional<int> dimensions;
  bool truncate = false;
  std::vector<std::string> ignored;
};

// They set how text is generated or a model is loaded.
void set_options(Draft& draft, const Json& value) {
  for (const auto& [name, option] : value.items()) {
    if (!option.is_null()) draft.ignored.push_back("options." + name);
  }
}

constexpr Field<Draft> kCommon[] = {
    {field::text("model", "An encoder on this disk", R"({"minLength": 1})").required(),
     [](Draft& d, const Json& v) { d.params.model = v.get<std::string>(); }},
    {field::object("options", "Change nothing here: they are of generation and of loading"), set_options},
    {field::any("keep_alive", "How long the model stays: seconds, or a duration such as 10m",
                R"({"anyOf": [{"type": "number"}, {"type": "string"}]})"),
     [](Draft& d, const Json& v) { d.keep_alive = read_keep_alive(v); }},
};
constexpr Field<Draft> kEmbed[] = {
    {field::any(
         "input", "A text or a list of texts",
         R"({"anyOf": [{"type": "string"}, {"type": "array", "maxItems": 2048, "items": {"type": "string"}}]})"),
     [](Draft& d, const Json& v) {
       if (v.is_array() && !v.empty()) as_string("input[0]", v[0]);
       if (!v.empty()) d.params.inputs = read_encoder_inputs("input", v);
     }},
    {field::flag("truncate", "Cut longer texts to what the model reads; else they are refused"),
     [](Draft& d, const Json& v) { d.truncate = v.get<bool>(); }},
    {field::integer("dimensions", 1, kMostDimensions, "Keep the first components only, scaled to length 1"),
     [](Draft& d, const Json& v) { d.dimensions = static_cast<int>(as_integer("dimensions", v)); }},
};
constexpr Field<Draft> kEmbeddings[] = {
    {field::text("prompt", "The text"),
     [](Draft& d, const Json& v) {
       d.params.inputs = {{.text = v.get<std::string>(), .pair = {}, .tokens = {}}};
     }},
};
constexpr auto kEmbedFields = join_fields(kCommon, kEmbed);
constexpr auto kEmbeddingsFields = join_fields(kCommon, kEmbeddings);

struct Answer {
  std::string model;  // as the client named it
  std::optional<int> dimensions;
  double load_seconds = 0;
  std::chrono::steady_clock::time_point received;
  std::shared_ptr<void> lease;  // until the answer is over
};

std::string render_embed(const Answer& answer, const EncodeResult& result) {
  std::string out = fmt::format(R"({{"model":{},"embeddings":[)", json_string(answer.model));
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    if (i > 0) out += ',';
    append_vector(out, shortened(result.values[i], answer.dimensions));
  }
  const auto elapsed = std::chrono::steady_clock::now() - answer.received;
  return out + fmt::format(R"(],"total_duration":{},"load_duration":{:.0f},"prompt_eval_count":{}}})",
                           std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count(),
                           answer.load_seconds * 1e9,
                           std::accumulate(result.tokens.begin(), result.tokens.end(), 0));
}

std::string render_embedding(const EncodeResult& result) {
  std::string out = R"({"embedding":)";
  append_vector(out, result.values.empty() ? std::span<const float>() : result.values.front());
  return out + '}';
}

Reply embed(Engine& engine, ModelKeeper& keeper, const HttpRequest& http,
            std::span<const Field<Draft>> fields, std::string_view inputs_field) {
  Draft draft;
  for (std::string& name : read_fields<Draft>(parse_body(http.body), fields, draft))
    draft.ignored.push_back(std::move(name));
  if (draft.params.model.empty()) refuse_field("model", "model is missing or empty", "model is required");
  std::optional<Duration> keep;
  if (draft.keep_alive) keep = std::chrono::duration_cast<Duration>(*draft.keep_alive);
  ModelKeeper::Held held = keeper.hold(draft.params.model, keep);
  const ModelInfo model = engine.model_info(held.id);
  require_embeddings(model);
  check_dimensions(model, draft.dimensions);
  Answer answer{.model = std::exchange(draft.params.model, held.id),
                .dimensions = draft.dimensions,
                .load_seconds = held.load_seconds,
                .received = http.received,
                .lease = std::move(held.use)};
  const bool many = inputs_field == "input";
  RenderEncoding render = [answer, many](const EncodeResult& result) {
    return many ? render_embed(answer, result) : render_embedding(result);
  };
  if (draft.params.inputs.empty()) return HttpResponse{.body = render({})};  // the model is loaded by now
  if (draft.truncate) draft.params.truncate_to = INT_MAX;
  return encode_reply(std::move(draft.params), inputs_field, std::move(render), ollama_error_json,
                      std::move(draft.ignored));
}

}  // namespace

Json ollama_embed_schema() { return fields_schema<Draft>(kEmbedFields); }
Json ollama_embeddings_schema() { return fields_schema<Draft>(kEmbeddingsFields); }

Reply ollama_embed(Engine& engine, ModelKeeper& keeper, const HttpRequest& http) {
  return embed(engine, keeper, http, kEmbedFields, "input");
}

Reply ollama_embeddings(Engine& engine, ModelKeeper& keeper, const HttpRequest& http) {
  return embed(engine, keeper, http, kEmbeddingsFields, "prompt");
}

}  // namespace mlxs
