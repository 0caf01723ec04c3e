#include "serve/rerank.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "serve/encode_feed.h"
#include "serve/encoder_fields.h"
#include "serve/ids.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

constexpr std::string_view kTextsSchema =
    R"({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string"}}]})";
constexpr std::string_view kDocumentsSchema = R"({"minItems": 1, "maxItems": 2048, "items": {"anyOf": [
  {"type": "string"}, {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}]}})";

void set_documents(RerankRequest& request, const Json& value) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = fmt::format("documents[{}]", i);
    if (value[i].is_object()) {
      request.documents.push_back(as_string(path + ".text", value[i].value("text", Json())));
    } else {
      request.documents.push_back(as_string(path, value[i]));
    }
  }
}

std::vector<std::string> texts(std::string_view field, const Json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array() || value.empty()) {
    refuse_field(field, fmt::format("{} is empty or has the wrong type", field),
                 fmt::format("{} must be a string or a list of strings", field));
  }
  std::vector<std::string> list;
  for (std::size_t i = 0; i < value.size(); ++i)
    list.push_back(as_string(fmt::format("{}[{}]", field, i), value[i]));
  return list;
}

constexpr Field<RerankRequest> kRerank[] = {
    {field::text("model", "An encoder; may be left out while one is loaded"),
     [](RerankRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::text("query", "What the documents are compared with").required(),
     [](RerankRequest& r, const Json& v) { r.query = v.get<std::string>(); }},
    {field::list("documents", "Texts to be put in order", kDocumentsSchema).required(), set_documents},
    {field::integer("top_n", 1, kMostTokens, "Return the best so many only"),
     [](RerankRequest& r, const Json& v) { r.top_n = static_cast<int>(as_integer("top_n", v)); }},
    {field::flag("return_documents", "Whether results repeat their text; true unless given"),
     [](RerankRequest& r, const Json& v) { r.return_documents = v.get<bool>(); }},
    {field::integer("truncate_prompt_tokens", -1, kMostTokens, kTruncateAbout),
     [](RerankRequest& r, const Json& v) { r.truncate_to = truncation(v); }},
};

constexpr Field<ScoreRequest> kScore[] = {
    {field::text("model", "An encoder; may be left out while one is loaded"),
     [](ScoreRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::any("text_1", "One text, or as many as text_2 has", kTextsSchema).required(),
     [](ScoreRequest& r, const Json& v) { r.first = texts("text_1", v); }},
    {field::any("text_2", "The texts that the first are compared with", kTextsSchema).required(),
     [](ScoreRequest& r, const Json& v) { r.second = texts("text_2", v); }},
    {field::integer("truncate_prompt_tokens", -1, kMostTokens, kTruncateAbout),
     [](ScoreRequest& r, const Json& v) { r.truncate_to = truncation(v); }},
};

// Scores of pairs (first[i or 0], second[i]), and what the model reads for them.
struct Pairs {
  EncodeParams params;
  std::size_t firsts = 0;  // 0: the model scores pairs itself

  float score(const EncodeResult& result, std::size_t pair) const {
    if (firsts == 0) return result.values[pair][0];
    const std::vector<float>& a = result.values[firsts == 1 ? 0 : pair];
    const std::vector<float>& b = result.values[firsts + pair];
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0f);
  }
};

Pairs make_pairs(const ModelInfo& model, const std::vector<std::string>& first,
                 const std::vector<std::string>& second) {
  Pairs pairs;
  pairs.params.model = model.id;
  auto& inputs = pairs.params.inputs;
  if (model.scores) {
    for (std::size_t i = 0; i < second.size(); ++i)
      inputs.push_back({.text = first[first.size() == 1 ? 0 : i], .pair = second[i], .tokens = {}});
    return pairs;
  }
  pairs.firsts = first.size();
  for (const auto* texts : {&first, &second}) {
    for (const std::string& text : *texts) inputs.push_back({.text = text, .pair = {}, .tokens = {}});
  }
  return pairs;
}

int total_tokens(const EncodeResult& result) {
  return std::accumulate(result.tokens.begin(), result.tokens.end(), 0);
}

std::string render_rerank(const EncodeResult& result, const Pairs& pairs, const RerankRequest& request,
                          const std::string& id) {
  std::vector<std::pair<float, std::size_t>> order;
  for (std::size_t i = 0; i < request.documents.size(); ++i) order.emplace_back(pairs.score(result, i), i);
  std::ranges::stable_sort(order, std::ranges::greater{}, &std::pair<float, std::size_t>::first);
  if (request.top_n) order.resize(std::min(order.size(), static_cast<std::size_t>(*request.top_n)));
  std::string out = fmt::format(R"({{"id":"{}","model":{},"results":[)", id, json_string(pairs.params.model));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& [score, index] = order[i];
    out += fmt::format(R"({}{{"index":{},"relevance_score":{})", i == 0 ? "" : ",", index, score);
    if (request.return_documents)
      out += fmt::format(R"(,"document":{{"text":{}}})", json_string(request.documents[index]));
    out += '}';
  }
  return out + fmt::format(R"(],"usage":{{"total_tokens":{}}}}})", total_tokens(result));
}

std::string render_scores(const EncodeResult& result, const Pairs& pairs, std::size_t count,
                          const std::string& id) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string out = fmt::format(R"({{"id":"{}","object":"list","created":{},"model":{},"data":[)", id,
                                std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                                json_string(pairs.params.model));
  for (std::size_t i = 0; i < count; ++i) {
    out += fmt::format(R"({}{{"index":{},"object":"score","score":{}}})", i == 0 ? "" : ",", i,
                       pairs.score(result, i));
  }
  const int tokens = total_tokens(result);
  return out + fmt::format(R"(],"usage":{{"prompt_tokens":{},"total_tokens":{},"completion_tokens":0}}}})",
                           tokens, tokens);
}

Reply rerank(Engine& engine, const HttpRequest& http) {
  RerankRequest request = parse_rerank_request(http.body);
  Pairs pairs = make_pairs(engine.model_info(chosen_encoder(engine, request.model)), {request.query},
                           request.documents);
  pairs.params.truncate_to = request.truncate_to;
  EncodeParams params = pairs.params;
  std::vector<std::string> ignored = std::move(request.ignored);
  pairs.params.inputs.clear();
  return encode_reply(
      std::move(params), "documents",
      [pairs = std::move(pairs), request = std::move(request), id = random_id("rerank-")](
          const EncodeResult& result) { return render_rerank(result, pairs, request, id); },
      nullptr, std::move(ignored));
}

Reply score(Engine& engine, const HttpRequest& http) {
  ScoreRequest request = parse_score_request(http.body);
  Pairs pairs =
      make_pairs(engine.model_info(chosen_encoder(engine, request.model)), request.first, request.second);
  pairs.params.truncate_to = request.truncate_to;
  EncodeParams params = pairs.params;
  pairs.params.inputs.clear();
  return encode_reply(
      std::move(params), "text_2",
      [pairs = std::move(pairs), count = request.second.size(), id = random_id("score-")](
          const EncodeResult& result) { return render_scores(result, pairs, count, id); },
      nullptr, std::move(request.ignored));
}

}  // namespace

Json rerank_request_schema() { return fields_schema<RerankRequest>(kRerank); }
Json score_request_schema() { return fields_schema<ScoreRequest>(kScore); }

RerankRequest parse_rerank_request(std::string_view body) {
  RerankRequest request;
  const Json document = parse_body(body);
  request.ignored = read_fields<RerankRequest>(document, kRerank, request);
  if (document.value("query", Json()).is_null())
    refuse_field("query", "query is missing", "query is required");
  if (request.documents.empty())
    refuse_field("documents", "documents is missing or empty", "send at least one text");
  return request;
}

ScoreRequest parse_score_request(std::string_view body) {
  ScoreRequest request;
  request.ignored = read_fields<ScoreRequest>(parse_body(body), kScore, request);
  for (const auto& [name, list] : {std::pair{"text_1", &request.first}, {"text_2", &request.second}}) {
    if (list->empty())
      refuse_field(name, fmt::format("{} is missing", name), fmt::format("{} is required", name));
  }
  if (request.first.size() != 1 && request.first.size() != request.second.size()) {
    refuse_field("text_1",
                 fmt::format("text_1 has {} texts, text_2 {}", request.first.size(), request.second.size()),
                 "send one text_1, or as many as text_2 has");
  }
  return request;
}

void add_rerank_routes(Router& router, Engine& engine) {
  for (const char* path : {"/v1/rerank", "/rerank", "/v2/rerank"}) {
    router.add("POST", path,
               [&engine](const HttpRequest& http, std::string_view) { return rerank(engine, http); });
  }
  for (const char* path : {"/v1/score", "/score"}) {
    router.add("POST", path,
               [&engine](const HttpRequest& http, std::string_view) { return score(engine, http); });
  }
}

}  // namespace mlxs
