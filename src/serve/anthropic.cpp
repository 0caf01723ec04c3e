#include "serve/anthropic.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "serve/anthropic_format.h"
#include "serve/anthropic_request.h"
#include "serve/chat_setup.h"
#include "serve/ids.h"

namespace mlxs {
namespace {

// What of the prompt its client wants to stay computed: asked of the engine, and returned for the answer's
// usage.
std::vector<CachedBeginning> pin_beginnings(const Engine& engine, const ModelInfo& model,
                                            const AnthropicRequest& request, const GenerateParams& asked,
                                            const TokenPrompt& prompt, GenerateParams& params) {
  std::vector<CachedBeginning> result;
  if (!engine.options().prefix_cache) return result;
  for (const AnthropicRequest::Beginning& beginning : request.beginnings) {
    GenerateParams same = asked;
    ChatPrompt chat = beginning.chat;
    int tokens = 0;
    try {
      set_up_chat(engine, model, request.tools, request.thinking, "output_config", same, chat);
      tokens = common_beginning(prompt.tokens, engine.encode_prompt(model.id, chat));
    } catch (const Error&) {
      continue;  // a template need not take a conversation that ends here; the whole one it took
    }
    params.pins.push_back({tokens, beginning.ttl_ms});
    result.push_back({tokens, beginning.ttl_ms});
  }
  return result;
}

Generation to_generation(const Engine& engine, SamplingDefaults defaults, AnthropicRequest request,
                         const std::string& request_id) {
  request.params.request_id = request_id;
  const ModelInfo model = engine.model_info(request.params.model);
  set_defaults(defaults, model.sampling, request.said, request.params);
  const GenerateParams asked = request.params;
  ChatSetup setup = set_up_chat(engine, model, request.tools, request.thinking, "output_config",
                                request.params, request.chat);
  // A stream's first event has the prompt's length: encoded here, so that it is known by then.
  TokenPrompt prompt{engine.encode_prompt(model.id, request.chat)};
  AnthropicAnswerInfo info{
      .id = random_id("msg_"),
      .model = model.id,
      .prompt_tokens = static_cast<int>(prompt.tokens.size()),
      .beginnings = pin_beginnings(engine, model, request, asked, prompt, request.params),
      .stops = asked.stop,
      .stream = request.stream,
      .shape = setup.shape};
  request.params.prompt = std::move(prompt);

  Generation generation;
  generation.stream = request.stream;
  generation.field_names = {
      {"prompt", "messages"}, {"stop", "stop_sequences"}, {"structured", setup.structured_field}};
  generation.error_body = anthropic_error_json;
  generation.format = make_anthropic_answer(std::move(info));
  generation.warnings = std::move(setup.warnings);
  for (const std::string& name : request.ignored)
    generation.warnings.push_back(name + " is not known and was ignored");
  generation.prompts.push_back(std::move(request.params));
  return generation;
}

HttpResponse token_count(const Engine& engine, ModelKeeper& keeper, AnthropicRequest request) {
  const ModelInfo model = engine.model_info(request.params.model);
  const std::shared_ptr<void> use = keeper.use(model.id);
  set_up_chat(engine, model, request.tools, request.thinking, "output_config", request.params, request.chat);
  return {.body =
              fmt::format(R"({{"input_tokens":{}}})", engine.encode_prompt(model.id, request.chat).size())};
}

}  // namespace

void add_anthropic_routes(Router& router, Engine& engine, ModelKeeper& keeper, SamplingDefaults defaults) {
  router.add(
      "POST", "/v1/messages", [&engine, defaults](const HttpRequest& request, std::string_view) -> Reply {
        return to_generation(engine, defaults, parse_anthropic_request(request.body, AnthropicApi::kMessages),
                             request.id);
      });
  router.add("POST", "/v1/messages/count_tokens",
             [&engine, &keeper](const HttpRequest& request, std::string_view) -> Reply {
               return token_count(engine, keeper,
                                  parse_anthropic_request(request.body, AnthropicApi::kCountTokens));
             });
}

}  // namespace mlxs
