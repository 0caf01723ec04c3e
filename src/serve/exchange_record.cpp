#include "serve/exchange_record.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "serve/ids.h"

namespace mlxs {
namespace {

// As the semantic conventions for generative AI name what is done.
std::string operation_of(std::string_view path) {
  if (path == "/v1/completions" || path == "/api/generate") return "text_completion";
  if (path == "/v1/embeddings" || path.starts_with("/api/embed")) return "embeddings";
  if (path.ends_with("/rerank")) return "rerank";
  if (path.ends_with("/score")) return "score";
  return "chat";
}

// The prompt as JSON: text, messages or token ids.
std::string prompt_json(const Prompt& prompt) {
  using Json = nlohmann::ordered_json;
  struct Visitor {
    Json operator()(const std::string& text) const { return text; }
    Json operator()(const TokenPrompt& given) const { return given.tokens; }
    Json operator()(const ChatPrompt& chat) const {
      if (!chat.messages_json.empty()) return Json::parse(chat.messages_json, nullptr, false);
      Json messages = Json::array();
      for (const ChatMessage& message : chat.messages) {
        messages.push_back({{"role", message.role}, {"content", message.content}});
      }
      return messages;
    }
  };
  return std::visit(Visitor{}, prompt).dump(-1, ' ', false, Json::error_handler_t::replace);
}

RequestFacts facts_of(const ServerContext& context, const HttpRequest& request,
                      const Generation& generation) {
  const GenerateParams& params = generation.prompts.front();
  return {.operation = operation_of(request.path),
          .stream = generation.stream,
          .prompts = static_cast<int>(generation.prompts.size()),
          .choices = generation.n,
          .max_tokens = params.max_tokens,
          .temperature = params.temperature,
          .top_p = params.top_p,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty,
          .top_k = params.top_k,
          .seed = params.seed,
          .slo_ttft_ms = params.slo_ttft_ms,
          .slo_tpot_ms = params.slo_tpot_ms,
          .prompt = context.options.log_prompts ? prompt_json(params.prompt) : std::string()};
}

TraceStart start_of(const HttpRequest& request) {
  const auto age = std::chrono::steady_clock::now() - request.received;
  const auto wall = (std::chrono::system_clock::now() - age).time_since_epoch();
  return {.id = {},
          .method = request.method,
          .path = request.path,
          .peer = request.peer,
          .tenant = request.tenant,
          .model = {},
          .metadata = {},
          .received = request.received,
          .received_unix_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count(),
          .context = {},
          .facts = {}};
}

}  // namespace

void identify(const ServerContext& context, HttpRequest& request, std::string id) {
  request.id = id.empty() ? usable_request_id(request.header("x-request-id")).value_or(random_id("req-"))
                          : std::move(id);
  auto trace = parse_traceparent(request.header("traceparent"), request.header("tracestate"));
  if (!trace) {
    trace = new_trace();
    trace->sampled = context.options.tracing && in_share(*trace, context.options.trace_share);
  }
  request.trace = context.requests.open({.id = request.id, .context = std::move(*trace)});
}

std::vector<std::pair<std::string, std::string>> common_headers(const ServerContext& context,
                                                                const HttpRequest& request) {
  auto headers = context.cors.headers(request);
  if (!request.trace) return headers;
  const TraceContext& trace = request.trace->context();
  if (context.options.tracing || trace.has_parent()) headers.emplace_back("traceparent", traceparent(trace));
  return headers;
}

void begin_record(ServerContext& context, const HttpRequest& request, const Generation& generation) {
  TraceStart start = start_of(request);
  start.model = generation.prompts.front().model;
  start.metadata = generation.metadata;
  start.facts = facts_of(context, request, generation);
  request.trace->describe(std::move(start));
  context.requests.keep(request.trace);
}

void begin_record(ServerContext& context, const HttpRequest& request, const EncodeParams& params) {
  TraceStart start = start_of(request);
  start.model = params.model;
  start.facts = {.operation = operation_of(request.path),
                 .generates = false,
                 .prompts = static_cast<int>(params.inputs.size())};
  if (context.options.log_prompts) {
    nlohmann::ordered_json texts = nlohmann::ordered_json::array();
    for (const EncoderInput& input : params.inputs) texts.push_back(input.text);
    start.facts.prompt = texts.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }
  request.trace->describe(std::move(start));
  context.requests.keep(request.trace);
}

std::shared_ptr<void> count_stream(const ServerContext& context) {
  ++context.options.counters->streams;
  return {nullptr, [counters = context.options.counters](void*) { --counters->streams; }};
}

void end_exchange(const ServerContext& context, const HttpRequest& request, const TraceEnd& end) {
  context.options.counters->answered(end.status, end.bytes, end.socket_wait_seconds);
  if (!request.trace) return;
  if (!request.trace->described()) request.trace->describe(start_of(request));
  request.trace->end(end);
}

}  // namespace mlxs
