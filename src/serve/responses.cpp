#include "serve/responses.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "serve/chat_setup.h"
#include "serve/ids.h"
#include "serve/responses_format.h"
#include "serve/responses_request.h"
#include "serve/responses_store.h"

namespace mlxs {
namespace {

constexpr std::string_view kInputItems = "/input_items";

struct Context {
  SteadyClock clock;
  ResponsesStore store{clock};
};

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The members of an object, without its braces.
std::string members(const OrderedJson& object) {
  const std::string text = object.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  return text.substr(1, text.size() - 2);
}

// What came before, then this input.
OrderedJson conversation(ResponsesStore& store, const ResponsesRequest& request, std::string_view tenant) {
  if (request.previous_id.empty()) return request.messages;
  const auto previous = store.find(request.previous_id, tenant);
  if (!previous) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no response '{}'", request.previous_id),
                "responses are kept for a day, while there is room, unless store is false",
                "previous_response_id");
  }
  OrderedJson messages = previous->messages;
  for (const auto& message : request.messages) messages.push_back(message);
  return messages;
}

ChatPrompt to_prompt(const OrderedJson& messages, const std::string& instructions) {
  OrderedJson all = messages;
  if (!instructions.empty()) {
    if (all.front()["role"] == "system") {  // templates want one, at the start
      all.front()["content"] = instructions + "\n\n" + all.front()["content"].get<std::string>();
    } else {
      all.insert(all.begin(), OrderedJson{{"role", "system"}, {"content", instructions}});
    }
  }
  ChatPrompt prompt;
  prompt.messages_json = all.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  return prompt;
}

Generation to_generation(const Engine& engine, SamplingDefaults defaults,
                         const std::shared_ptr<Context>& context, ResponsesRequest request,
                         const HttpRequest& http) {
  const ModelInfo model = engine.model_info(chosen_model(engine, request.params.model));
  request.params.model = model.id;
  request.params.request_id = http.id;
  set_defaults(defaults, model.sampling, request.said, request.params);
  if (!request.said.temperature) request.echo["temperature"] = request.params.temperature;
  if (!request.said.top_p) request.echo["top_p"] = request.params.top_p;
  OrderedJson messages = conversation(context->store, request, http.tenant);
  ChatPrompt prompt = to_prompt(messages, request.instructions);

  Generation generation;
  generation.stream = request.stream;
  generation.metadata = request.metadata;
  ResponsesAnswerInfo info{.id = random_id("resp_"),
                           .created_unix_s = unix_seconds(),
                           .model = model.id,
                           .echo = members(request.echo),
                           .stream = request.stream,
                           .logprobs = request.logprobs};
  ChatSetup setup = set_up_chat(engine, model, request.tools, request.thinking, request.structured_field,
                                request.params, prompt);
  info.shape = setup.shape;
  generation.warnings = std::move(setup.warnings);
  request.params.prompt = std::move(prompt);
  generation.field_names = {
      {"prompt", "input"}, {"max_tokens", "max_output_tokens"}, {"structured", setup.structured_field}};
  for (const std::string& name : request.ignored)
    generation.warnings.push_back(name + " is not known and was ignored");
  if (request.store) {
    info.on_done = [context, id = info.id, tenant = http.tenant, messages = std::move(messages),
                    items = request.input_items.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)](
                       const std::string& json, const OrderedJson& message) {
      OrderedJson whole = messages;
      whole.push_back(message);
      context->store.put(
          {.id = id, .tenant = tenant, .json = json, .input_items = items, .messages = std::move(whole)});
    };
  }
  generation.format = make_responses_answer(std::move(info));
  generation.prompts.push_back(std::move(request.params));
  return generation;
}

[[noreturn]] void throw_absent(std::string_view id) {
  throw Error(ErrorCode::kNotFound, fmt::format("there is no response '{}'", id),
              "responses are kept for a day, while there is room, unless store is false", "response_id");
}

HttpResponse read(ResponsesStore& store, std::string_view rest, std::string_view tenant) {
  const bool items = rest.ends_with(kInputItems);
  if (items) rest.remove_suffix(kInputItems.size());
  const auto found = store.find(rest, tenant);
  if (!found) throw_absent(rest);
  if (!items) return {.body = found->json};
  const OrderedJson list = OrderedJson::parse(found->input_items);
  return {.body = fmt::format(R"({{"object":"list","data":{},"first_id":{},"last_id":{},"has_more":false}})",
                              found->input_items, list.front()["id"].dump(), list.back()["id"].dump())};
}

}  // namespace

void add_responses_routes(Router& router, Engine& engine, SamplingDefaults defaults) {
  const auto context = std::make_shared<Context>();
  router.add("POST", "/v1/responses",
             [&engine, defaults, context](const HttpRequest& request, std::string_view) -> Reply {
               return to_generation(engine, defaults, context, parse_responses_request(request.body),
                                    request);
             });
  router.add("GET", "/v1/responses/{id}",
             [context](const HttpRequest& request, std::string_view id) -> Reply {
               return read(context->store, id, request.tenant);
             });
  router.add(
      "DELETE", "/v1/responses/{id}", [context](const HttpRequest& request, std::string_view id) -> Reply {
        if (!context->store.remove(id, request.tenant)) throw_absent(id);
        return HttpResponse{.body =
                                OrderedJson{{"id", id}, {"object", "response"}, {"deleted", true}}.dump()};
      });
}

}  // namespace mlxs
