#include "serve/tokenize_routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "serve/chat_messages.h"
#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/prepare.h"
#include "serve/token_list.h"

namespace mlxs {
namespace {

struct TokenizeRequest {
  std::string model;
  std::optional<std::string> prompt;
  std::optional<ChatPrompt> chat;
  bool add_special = true, add_generation_prompt = true, strings = false;
  std::string template_variables;
  std::vector<std::string> ignored;
};

constexpr Field<TokenizeRequest> kTokenize[] = {
    {field::text("model", "A loaded model; may be left out while there is one"),
     [](TokenizeRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::text("prompt", "A text; or send messages"),
     [](TokenizeRequest& r, const Json& v) { r.prompt = v.get<std::string>(); }},
    {field::list("messages", "A chat, which the model's template turns into a text",
                 R"({"minItems": 1, "items": {"$ref": "#/components/schemas/ChatMessage"}})"),
     [](TokenizeRequest& r, const Json& v) { r.chat = read_messages(v, r.ignored); }},
    {field::flag("add_special_tokens",
                 "Whether a prompt gets the tokens that begin and end a text; true unless given"),
     [](TokenizeRequest& r, const Json& v) { r.add_special = v.get<bool>(); }},
    {field::flag("add_generation_prompt",
                 "Whether a chat ends with the beginning of the answer; true unless given"),
     [](TokenizeRequest& r, const Json& v) { r.add_generation_prompt = v.get<bool>(); }},
    {field::object("chat_template_kwargs", "Further variables of the template"),
     [](TokenizeRequest& r, const Json& v) { r.template_variables = v.dump(); }},
    {field::flag("return_token_strs", "Whether token_strs has the text of each token"),
     [](TokenizeRequest& r, const Json& v) { r.strings = v.get<bool>(); }},
};

struct DetokenizeRequest {
  std::string model;
  std::vector<std::int32_t> tokens;
  bool given = false;
};

constexpr Field<DetokenizeRequest> kDetokenize[] = {
    {field::text("model", "A loaded model; may be left out while there is one"),
     [](DetokenizeRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::list("tokens", "Token ids",
                 R"({"items": {"type": "integer", "minimum": 0, "maximum": 2147483647}})")
         .required(),
     [](DetokenizeRequest& r, const Json& v) {
       r.tokens = read_tokens("tokens", v);
       r.given = true;
     }},
};

// A schema of objects in which the field is neither absent nor null.
Json needs(const char* name) {
  return {{"required", Json::array({name})}, {"properties", {{name, {{"not", {{"type", "null"}}}}}}}};
}

// Any model will do, an encoder too.
std::string chosen(const Engine& engine, const std::string& asked) {
  if (!asked.empty()) return asked;
  const std::vector<ModelInfo> models = engine.list_models();
  if (models.size() == 1) return models.front().id;
  throw Error(ErrorCode::kInvalidArgument, "model is missing",
              fmt::format("{} models are loaded: name one of GET /v1/models", models.size()), "model");
}

HttpResponse with_warnings(std::string body, std::vector<std::string> ignored) {
  HttpResponse response{.body = std::move(body)};
  for (std::string& name : ignored) name += " is not known and was ignored";
  if (!ignored.empty()) response.headers.emplace_back("x-mlxs-warning", warning_text(ignored));
  return response;
}

std::vector<std::int32_t> tokens_of(const Engine& engine, const std::string& model,
                                    TokenizeRequest& request) {
  if (!request.chat) return engine.tokenize(model, *request.prompt, request.add_special);
  request.chat->variables_json = request.template_variables;
  request.chat->add_generation_prompt = request.add_generation_prompt;
  return engine.encode_prompt(model, *request.chat);
}

Reply tokenize(const Engine& engine, ModelKeeper& keeper, const HttpRequest& http) {
  TokenizeRequest request;
  for (std::string& name : read_fields<TokenizeRequest>(parse_body(http.body), kTokenize, request))
    request.ignored.push_back(std::move(name));
  if (request.prompt.has_value() == request.chat.has_value()) {
    refuse_field("prompt", request.chat ? "prompt and messages are both given" : "prompt is missing",
                 "send prompt or messages");
  }
  const ModelInfo model = engine.model_info(chosen(engine, request.model));
  const std::shared_ptr<void> use = keeper.use(model.id);
  const std::vector<std::int32_t> tokens = tokens_of(engine, model.id, request);
  std::string strings = "null";
  if (request.strings) {
    strings = "[";
    for (const std::string& text : engine.token_texts(model.id, tokens))
      strings += (strings.size() > 1 ? "," : "") + json_string(text);
    strings += ']';
  }
  return with_warnings(fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}],"token_strs":{}}})",
                                   tokens.size(), model.context_limit, fmt::join(tokens, ","), strings),
                       std::move(request.ignored));
}

Reply detokenize(const Engine& engine, ModelKeeper& keeper, const HttpRequest& http) {
  DetokenizeRequest request;
  std::vector<std::string> ignored =
      read_fields<DetokenizeRequest>(parse_body(http.body), kDetokenize, request);
  if (!request.given) refuse_field("tokens", "tokens is missing", "tokens is required");
  const ModelInfo model = engine.model_info(chosen(engine, request.model));
  const std::shared_ptr<void> use = keeper.use(model.id);
  for (std::size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] < model.vocabulary) continue;
    refuse_field(fmt::format("tokens[{}]", i),
                 fmt::format("token id {} is outside the vocabulary", request.tokens[i]),
                 fmt::format("ids of '{}' are 0 … {}", model.id, model.vocabulary - 1));
  }
  return with_warnings(
      fmt::format(R"({{"prompt":{}}})", json_string(engine.detokenize(model.id, request.tokens))),
      std::move(ignored));
}

}  // namespace

Json tokenize_request_schema() {
  Json schema = fields_schema<TokenizeRequest>(kTokenize);
  for (const char* name : {"prompt", "messages"}) schema["oneOf"].push_back(needs(name));
  return schema;
}
Json detokenize_request_schema() { return fields_schema<DetokenizeRequest>(kDetokenize); }

void add_tokenize_routes(Router& router, Engine& engine, ModelKeeper& keeper) {
  for (const char* prefix : {"", "/v1"}) {
    router.add("POST", fmt::format("{}/tokenize", prefix),
               [&engine, &keeper](const HttpRequest& http, std::string_view) {
                 return tokenize(engine, keeper, http);
               });
    router.add("POST", fmt::format("{}/detokenize", prefix),
               [&engine, &keeper](const HttpRequest& http, std::string_view) {
                 return detokenize(engine, keeper, http);
               });
  }
}

}  // namespace mlxs
