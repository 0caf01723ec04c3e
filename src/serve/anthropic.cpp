#include "serve/anthropic.h"

#include <fmt/format.h>

#include <utility>

#include "serve/anthropic_format.h"
#include "serve/anthropic_request.h"
#include "serve/error_response.h"
#include "serve/ids.h"

namespace mlxs {
namespace {

Generation to_generation(const Engine& engine, AnthropicRequest request, const std::string& request_id) {
  request.params.request_id = request_id;
  const ModelInfo model = engine.model_info(request.params.model);
  // A stream's first event has the prompt's length: encoded here, so that it is known by then.
  TokenPrompt prompt{engine.encode_prompt(request.params.model, request.params.prompt)};
  AnthropicAnswerInfo info{
      .id = random_id("msg_"), .model = model.id, .prompt_tokens = static_cast<int>(prompt.tokens.size())};
  request.params.prompt = std::move(prompt);

  Generation generation;
  generation.stream = request.stream;
  generation.field_names = {
      {"prompt", "messages"}, {"stop", "stop_sequences"}, {"structured", "output_config"}};
  generation.error_body = anthropic_error_json;
  generation.format =
      request.stream ? make_anthropic_stream(std::move(info)) : make_anthropic_document(std::move(info));
  for (const std::string& name : request.ignored)
    generation.warnings.push_back(name + " is not known and was ignored");
  generation.prompts.push_back(std::move(request.params));
  return generation;
}

HttpResponse token_count(const Engine& engine, const AnthropicRequest& request) {
  const std::string model = engine.model_info(request.params.model).id;
  return {.body = fmt::format(R"({{"input_tokens":{}}})",
                              engine.encode_prompt(model, request.params.prompt).size())};
}

// A handler whose errors read as Anthropic's.
template <class Handle>
Router::Handler guarded(Handle handle) {
  return [handle](const HttpRequest& request, std::string_view) -> Reply {
    try {
      return handle(request);
    } catch (const Error& error) {
      return HttpResponse{.status = http_status(error.code()), .body = anthropic_error_json(error)};
    }
  };
}

}  // namespace

void add_anthropic_routes(Router& router, Engine& engine) {
  router.add("POST", "/v1/messages", guarded([&engine](const HttpRequest& request) -> Reply {
               return to_generation(engine, parse_anthropic_request(request.body, AnthropicApi::kMessages),
                                    request.id);
             }));
  router.add("POST", "/v1/messages/count_tokens", guarded([&engine](const HttpRequest& request) -> Reply {
               return token_count(engine, parse_anthropic_request(request.body, AnthropicApi::kCountTokens));
             }));
}

}  // namespace mlxs
