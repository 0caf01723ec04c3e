#include "serve/ollama.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "serve/chat_setup.h"
#include "serve/json_text.h"
#include "serve/model_keeper.h"
#include "serve/ollama_embed.h"
#include "serve/ollama_format.h"
#include "serve/ollama_models.h"
#include "serve/ollama_pull.h"
#include "serve/ollama_request.h"
#include "serve/qos_headers.h"

namespace mlxs {
namespace {

HttpResponse json_response(const Json& value) {
  return {.body = value.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

// The prompt as tokens (its length decides how much room num_ctx leaves), and the shape of the answer.
TokenPrompt encode(const Engine& engine, OllamaRequest& request, const ModelInfo& model, AnswerShape& shape) {
  const bool plain = request.verbatim || (!request.raw.empty() && !model.has_chat_template);
  if (!plain) {
    const Thinking thinking{.on = request.think, .effort = request.effort};
    ChatSetup setup =
        set_up_chat(engine, model, request.tools, thinking, "format", request.params, request.chat);
    shape = setup.shape;
    return {engine.encode_prompt(model.id, std::move(request.chat))};
  }
  if (request.chat.messages.size() > 1) {
    refuse_field("system", fmt::format("'{}' has no chat template for a system prompt", model.id),
                 "put it into the prompt");
  }
  return {engine.encode_prompt(model.id, request.raw)};
}

// num_predict is a wish: an answer ends where the context does, without an error.
void limit_answer(OllamaRequest& request, const ModelInfo& model, int prompt_tokens) {
  const int context = std::min(request.num_ctx.value_or(model.context_limit), model.context_limit);
  if (request.num_ctx && *request.num_ctx > model.context_limit) {
    request.ignored.push_back(fmt::format("options.num_ctx = {} is more than the context of {} tokens",
                                          *request.num_ctx, model.context_limit));
  }
  const int room = context - prompt_tokens;
  if (room < 1) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the prompt has {} tokens, the context {}", prompt_tokens, context),
                "shorten the prompt, or raise options.num_ctx; it is never truncated for you", "prompt");
  }
  auto& asked = request.params.max_tokens;
  if (request.num_ctx || asked) asked = std::min(asked.value_or(room), room);
}

void check_thinking(const OllamaRequest& request, const ModelInfo& model) {
  if (!request.think.value_or(false) || !model.reasoning.empty()) return;
  refuse_field("think", fmt::format("'{}' does not support thinking", request.params.model),
               "leave think out, or send false");
}

std::map<std::string, std::string, std::less<>> option_names() {
  std::map<std::string, std::string, std::less<>> names{{"max_tokens", "options.num_predict"},
                                                        {"repetition_penalty", "options.repeat_penalty"},
                                                        {"structured", "format"}};
  for (const char* name :
       {"temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty", "stop"})
    names.emplace(name, fmt::format("options.{}", name));
  return names;
}

Reply answer(Engine& engine, SamplingDefaults defaults, ModelKeeper& keeper, const HttpRequest& http,
             OllamaApi api) {
  OllamaRequest request = parse_ollama_request(http.body, api);
  std::optional<Duration> keep;
  if (request.keep_alive) keep = std::chrono::duration_cast<Duration>(*request.keep_alive);
  OllamaAnswerInfo info{.api = api, .model = request.params.model, .stream = request.stream};
  ModelKeeper::Held held = keeper.hold(request.params.model, keep);
  info.load_seconds = held.load_seconds;
  if (keep && !held.kept)
    request.ignored.push_back(
        fmt::format("keep_alive is ignored: '{}' was loaded by serve and stays", held.id));
  if (request.empty) {
    check_qos_headers(http);  // where something is generated, its caller does
    HttpResponse response{
        .body = ollama_empty_answer(info, held.kept && keep == Duration::zero() ? "unload" : "load")};
    if (request.stream) {
      response.body += '\n';
      response.content_type = kJsonLines;
    }
    return response;
  }
  const ModelInfo model = engine.model_info(held.id);
  if (model.is_encoder) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is an encoder and generates no text", held.id),
                "use /api/embed", "model");
  }
  check_thinking(request, model);
  request.params.model = held.id;
  set_defaults(defaults, model.sampling, request.said, request.params);
  request.params.request_id = http.id;
  TokenPrompt prompt = encode(engine, request, model, info.shape);
  limit_answer(request, model, static_cast<int>(prompt.tokens.size()));
  request.params.prompt = std::move(prompt);

  Generation generation;
  generation.stream = request.stream;
  generation.format = make_ollama_answer(std::move(info));
  generation.error_body = ollama_error_json;
  generation.field_names = option_names();
  generation.warnings = std::move(request.ignored);
  generation.lease = std::move(held.use);
  generation.prompts.push_back(std::move(request.params));
  return generation;
}

struct ShowRequest {
  std::string model;
  bool verbose = false;
};
constexpr Field<ShowRequest> kShowFields[] = {
    {field::text("model", "A model on this disk"),
     [](ShowRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::text("name", "The older name of model"),
     [](ShowRequest& r, const Json& v) { r.model = v.get<std::string>(); }},
    {field::flag("verbose", "Long values, too, such as the vocabulary"),
     [](ShowRequest& r, const Json& v) { r.verbose = v.get<bool>(); }},
};
ShowRequest parse_show(std::string_view body) {
  ShowRequest request;
  read_fields<ShowRequest>(parse_body(body), kShowFields, request);
  if (request.model.empty()) refuse_field("model", "model is missing or empty", "model is required");
  return request;
}

struct Context {
  Context(Engine& engine_, ModelKeeper& keeper_)
      : engine(engine_), keeper(keeper_), models(engine_, keeper_) {}
  Engine& engine;
  ModelKeeper& keeper;
  OllamaModels models;
  Downloads downloads{[](const std::string& name, const auto& progress) { Catalog().pull(name, progress); }};
};

}  // namespace

Json show_request_schema() { return fields_schema<ShowRequest>(kShowFields); }

void add_ollama_routes(Router& router, Engine& engine, ModelKeeper& keeper, SamplingDefaults defaults) {
  const auto context = std::make_shared<Context>(engine, keeper);
  const auto answer_as = [context, defaults](OllamaApi api) {
    return [context, defaults, api](const HttpRequest& request, std::string_view) {
      return answer(context->engine, defaults, context->keeper, request, api);
    };
  };
  router.add("POST", "/api/chat", answer_as(OllamaApi::kChat));
  router.add("POST", "/api/generate", answer_as(OllamaApi::kGenerate));
  router.add("POST", "/api/embed", [context](const HttpRequest& request, std::string_view) {
    return ollama_embed(context->engine, context->keeper, request);
  });
  router.add("POST", "/api/embeddings", [context](const HttpRequest& request, std::string_view) {
    return ollama_embeddings(context->engine, context->keeper, request);
  });
  router.add("GET", "/api/tags", [context](const HttpRequest&, std::string_view) -> Reply {
    return json_response(context->models.tags());
  });
  router.add("GET", "/api/ps", [context](const HttpRequest&, std::string_view) -> Reply {
    return json_response(context->models.running());
  });
  router.add("GET", "/api/version", [](const HttpRequest&, std::string_view) -> Reply {
    return json_response({{"version", MLXS_VERSION}});
  });
  router.add("POST", "/api/show", [context](const HttpRequest& request, std::string_view) -> Reply {
    const ShowRequest show = parse_show(request.body);
    return json_response(context->models.show(show.model, show.verbose));
  });
  // It fills this disk: for admins.
  router.add(
      "POST", "/api/pull",
      [context](const HttpRequest& request, std::string_view) -> Reply {
        return pull_model(context->downloads, context->keeper.catalog(), request.body);
      },
      Access::kAdmin);
}

}  // namespace mlxs
