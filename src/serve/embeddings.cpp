#include "serve/embeddings.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "serve/encode_feed.h"
#include "serve/encoder_fields.h"
#include "serve/json_text.h"
#include "serve/token_list.h"

namespace mlxs {
namespace {

static_assert(std::endian::native == std::endian::little, "base64 vectors are little-endian floats");

constexpr std::array<std::string_view, 2> kFormats{"float", "base64"};

struct Draft {
  EmbeddingRequest request;
  bool input = false;
};

constexpr Field<Draft> kFields[] = {
    {field::text("model", "An encoder; may be left out while one is loaded"),
     [](Draft& d, const Json& v) { d.request.params.model = v.get<std::string>(); }},
    {field::any("input", "What to embed: a text, token ids, or a list of either", kEncoderInputSchema)
         .required(),
     [](Draft& d, const Json& v) {
       d.request.params.inputs = read_encoder_inputs("input", v);
       d.input = true;
     }},
    {field::integer("dimensions", 1, kMostDimensions, "Keep the first components only, scaled to length 1"),
     [](Draft& d, const Json& v) { d.request.dimensions = static_cast<int>(as_integer("dimensions", v)); }},
    {field::choice("encoding_format", kFormats, "base64: little-endian 32-bit floats"),
     [](Draft& d, const Json& v) { d.request.base64 = v == "base64"; }},
    {field::text("user", "A label of the tenant, where nobody is asked for a key"),
     [](Draft& d, const Json& v) { d.request.params.user = v.get<std::string>(); }},
    {field::integer("truncate_prompt_tokens", -1, kMostTokens, kTruncateAbout),
     [](Draft& d, const Json& v) { d.request.params.truncate_to = truncation(v); }},
};

std::string base64_of(std::span<const float> vector) {
  const auto bytes = std::as_bytes(vector);
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // it ends with a zero
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

std::string render(const EncodeResult& result, const std::string& model, bool base64,
                   std::optional<int> dimensions) {
  std::string out = R"({"object":"list","data":[)";
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    out += fmt::format(R"({}{{"object":"embedding","index":{},"embedding":)", i == 0 ? "" : ",", i);
    const std::vector<float> vector = shortened(result.values[i], dimensions);
    if (base64) {
      out += '"' + base64_of(vector) + '"';
    } else {
      append_vector(out, vector);
    }
    out += '}';
  }
  const int tokens = std::accumulate(result.tokens.begin(), result.tokens.end(), 0);
  return out + fmt::format(R"(],"model":{},"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})",
                           json_string(model), tokens, tokens);
}

}  // namespace

std::vector<EncoderInput> read_encoder_inputs(std::string_view field, const Json& value) {
  std::vector<EncoderInput> inputs;
  const auto of_tokens = [&](const std::string& path, const Json& list) {
    if (list.empty()) refuse_field(path, path + " is empty", "send at least one token");
    inputs.push_back({.text = {}, .pair = {}, .tokens = read_tokens(path, list)});
  };
  if (value.is_string()) return {{.text = value.get<std::string>(), .pair = {}, .tokens = {}}};
  if (!value.is_array() || value.empty()) {
    refuse_field(field, fmt::format("{} is empty or has the wrong type", field),
                 fmt::format("{} must be a string, a list of strings, token ids, or a list of those", field));
  }
  if (value[0].is_number()) {
    of_tokens(std::string(field), value);
    return inputs;
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", field, i);
    if (value[0].is_array()) {
      check_value({.name = {}, .type = FieldType::kArray}, path, value[i]);
      of_tokens(path, value[i]);
    } else {
      inputs.push_back({.text = as_string(path, value[i]), .pair = {}, .tokens = {}});
    }
  }
  return inputs;
}

Json embedding_request_schema() { return fields_schema<Draft>(kFields); }

EmbeddingRequest parse_embedding_request(std::string_view body) {
  Draft draft;
  draft.request.ignored = read_fields<Draft>(parse_body(body), kFields, draft);
  if (!draft.input) refuse_field("input", "input is missing", "input is required");
  return std::move(draft.request);
}

void check_dimensions(const ModelInfo& model, std::optional<int> dimensions) {
  if (!dimensions || *dimensions <= model.dimensions || !model.is_encoder) return;
  refuse_field("dimensions", fmt::format("dimensions = {} is more than '{}' has", *dimensions, model.id),
               fmt::format("use 1 … {}", model.dimensions));
}

std::vector<float> shortened(std::vector<float> embedding, std::optional<int> dimensions) {
  if (!dimensions || static_cast<std::size_t>(*dimensions) >= embedding.size()) return embedding;
  embedding.resize(static_cast<std::size_t>(*dimensions));
  const float squares = std::inner_product(embedding.begin(), embedding.end(), embedding.begin(), 0.0f);
  for (float& value : embedding) value /= std::max(std::sqrt(squares), 1e-12f);
  return embedding;
}

void require_embeddings(const ModelInfo& model) {
  if (!model.scores) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' scores pairs and makes no embeddings", model.id),
              "use /v1/rerank or /v1/score, or another model", "model");
}

void add_embedding_routes(Router& router, Engine& engine) {
  router.add("POST", "/v1/embeddings", [&engine](const HttpRequest& http, std::string_view) -> Reply {
    EmbeddingRequest request = parse_embedding_request(http.body);
    const ModelInfo model = engine.model_info(chosen_encoder(engine, request.params.model));
    require_embeddings(model);
    check_dimensions(model, request.dimensions);
    request.params.model = model.id;
    return encode_reply(
        std::move(request.params), "input",
        [id = model.id, base64 = request.base64, dimensions = request.dimensions](
            const EncodeResult& result) { return render(result, id, base64, dimensions); },
        nullptr, std::move(request.ignored));
  });
}

}  // namespace mlxs
