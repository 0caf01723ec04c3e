#include "serve/openai.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "mlxs/error.h"
#include "serve/chat_setup.h"
#include "serve/ids.h"
#include "serve/openai_format.h"
#include "serve/openai_request.h"

namespace mlxs {
namespace {

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Equal for equal weights on an equal device: with the same seed, answers are then the same too.
std::string fingerprint(const ModelInfo& model, std::string_view device) {
  const std::string what = fmt::format("{} {} {} {} {} {}", model.id, model.architecture, model.quantization,
                                       model.parameter_count, model.weight_bytes, device);
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : what) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("fp_{:016x}", hash);
}

Generation to_generation(const Engine& engine, SamplingDefaults defaults, OpenAiRequest request,
                         OpenAiApi api, std::string_view device, const std::string& request_id) {
  request.params.model = chosen_model(engine, request.params.model);
  request.params.request_id = request_id;
  const ModelInfo model = engine.model_info(request.params.model);
  set_defaults(defaults, model.sampling, request.said, request.params);

  Generation generation;
  generation.n = request.n;
  generation.stream = request.stream;
  generation.metadata = std::move(request.metadata);
  if (api == OpenAiApi::kChat) generation.field_names.emplace("prompt", "messages");
  generation.field_names.emplace("max_tokens", request.max_tokens_field);
  generation.field_names.emplace("top_logprobs", api == OpenAiApi::kChat ? "top_logprobs" : "logprobs");
  ChatSetup setup;
  setup.structured_field = request.structured_field;
  if (api == OpenAiApi::kChat) {
    setup = set_up_chat(engine, model, request.tools, request.thinking, request.structured_field,
                        request.params, std::get<ChatPrompt>(request.prompts.front()));
  }
  generation.warnings = std::move(setup.warnings);
  generation.field_names.emplace("structured", setup.structured_field);
  for (const std::string& name : request.ignored)
    generation.warnings.push_back(name + " is not known and was ignored");

  AnswerInfo info{.api = api,
                  .id = random_id(api == OpenAiApi::kChat ? "chatcmpl-" : "cmpl-"),
                  .created_unix_s = unix_seconds(),
                  .model = model.id,
                  .fingerprint = fingerprint(model, device),
                  .prompts = request.prompts.size(),
                  .n = static_cast<std::size_t>(request.n),
                  .include_usage = request.include_usage,
                  .shape = setup.shape};
  for (std::size_t i = 0; request.echo && i < request.prompts.size(); ++i) {
    const auto* text = std::get_if<std::string>(&request.prompts[i]);
    const auto* tokens = std::get_if<TokenPrompt>(&request.prompts[i]);
    info.echo.push_back(text != nullptr     ? *text
                        : tokens != nullptr ? engine.detokenize(model.id, tokens->tokens)
                                            : std::string());
  }
  generation.format =
      request.stream ? make_openai_stream(std::move(info)) : make_openai_document(std::move(info));
  for (Prompt& prompt : request.prompts) {
    generation.prompts.push_back(request.params);
    generation.prompts.back().prompt = std::move(prompt);
  }
  return generation;
}

nlohmann::json model_json(const ModelInfo& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.loaded_unix_s},
          {"owned_by", "mlx-serving"},
          {"max_model_len", model.context_limit},
          {"architecture", model.architecture},
          {"quantization", model.quantization},
          {"parameters", model.parameter_count},
          {"task", model.scores       ? "score"
                   : model.is_encoder ? "embed"
                                      : "generate"}};
}

// Names come from files and the command line: they need not be UTF-8.
HttpResponse json_response(const nlohmann::json& value) {
  return {.body = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

}  // namespace

void add_openai_routes(Router& router, Engine& engine, SamplingDefaults defaults, int most_choices) {
  const std::string device = engine.device_description();
  router.add(
      "POST", "/v1/chat/completions",
      [&engine, defaults, device, most_choices](const HttpRequest& request, std::string_view) -> Reply {
        return to_generation(engine, defaults, parse_chat_request(request.body, most_choices),
                             OpenAiApi::kChat, device, request.id);
      });
  router.add(
      "POST", "/v1/completions",
      [&engine, defaults, device, most_choices](const HttpRequest& request, std::string_view) -> Reply {
        return to_generation(engine, defaults, parse_completion_request(request.body, most_choices),
                             OpenAiApi::kCompletion, device, request.id);
      });
  router.add("GET", "/v1/models", [&engine](const HttpRequest&, std::string_view) -> Reply {
    nlohmann::json data = nlohmann::json::array();
    for (const ModelInfo& model : engine.list_models()) data.push_back(model_json(model));
    return json_response({{"object", "list"}, {"data", std::move(data)}});
  });
  router.add("GET", "/v1/models/{model}", [&engine](const HttpRequest&, std::string_view id) -> Reply {
    for (const ModelInfo& model :
         engine.list_models()) {  // no look at the disk: on a thread of all connections
      if (model.id == id) return json_response(model_json(model));
    }
    throw Error(ErrorCode::kModelNotFound, fmt::format("model '{}' is not loaded", id),
                "GET /v1/models lists those that are", "model");
  });
}

}  // namespace mlxs
