#include "serve/prepare.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "serve/dialects.h"
#include "serve/encode_feed.h"
#include "serve/error_response.h"
#include "serve/exchange_record.h"
#include "serve/gate.h"
#include "serve/http_text.h"
#include "serve/qos_headers.h"
#include "serve/rate_account.h"
#include "telemetry/request_report.h"

namespace mlxs {

std::string warning_text(const std::vector<std::string>& warnings) {
  std::string out;
  for (const std::string& warning : warnings) out += (out.empty() ? "" : "; ") + warning;
  return header_value(out);
}

HttpResponse failure_response(const Error& error, ErrorBody body) {
  HttpResponse response = error_response(error);
  if (body != nullptr) response.body = body(error);
  if (error.code() == ErrorCode::kOverloaded) {
    const bool later = error.retry_after_s() > 0;
    if (later) response.headers.emplace_back("retry-after", fmt::format("{}", error.retry_after_s()));
    // OpenAI's clients try again unless told not to.
    response.headers.emplace_back("x-should-retry", later ? "true" : "false");
  }
  return response;
}

namespace {

void log_warnings(const HttpRequest& request, const LiveAnswer& answer) {
  if (answer.warnings().empty()) return;
  log::warn("{} {}: {}", request.id, request.path, warning_text(answer.warnings()));
}

void refuse_while_draining(const ServerContext& context) {
  if (!context.draining) return;
  throw Error(ErrorCode::kUnavailable, "the server is shutting down", "send the request to another one");
}

LiveAnswer start_encode(ServerContext& context, const HttpRequest& request, EncodeReply encode,
                        const std::optional<RateAccount>& account) {
  EncodeParams& params = encode.params;
  if (request.caller != nullptr) params.user = request.caller->tenant;
  begin_record(context, request, params);
  refuse_while_draining(context);
  params.request_id = request.id;
  params.received = request.received;
  params.on_ended = [trace = request.trace, account](RequestTimeline timeline) {
    if (account && timeline.finish == "stop") account->charge(timeline.prompt_tokens);
    trace->add(std::move(timeline));
  };
  std::shared_ptr<void> use = context.keeper.use(params.model);
  LiveAnswer answer = LiveAnswer::start(start_encoding(context.engine, context.admission, std::move(encode)));
  answer.hold(std::move(use));
  request.trace->expect_choice();
  return answer;
}

}  // namespace

bool wants_timing(const HttpRequest& request) {
  const std::string_view asked = request.header("x-mlxs-timing");
  return !asked.empty() && asked != "0" && request.trace && request.trace->described();
}

std::string timing_now(const HttpRequest& request) {
  return timing_header(request.trace->report(), std::chrono::steady_clock::now());
}

std::optional<HttpResponse> admit(const ServerContext& context, HttpRequest& request) {
  const ApiKeys& keys = context.keys.get();
  if (auto answer = context.cors.answer(request, !keys.empty())) return answer;
  auto admitted = admit_caller(keys, context.router.access_of(request), request);
  if (auto* refusal = std::get_if<HttpResponse>(&admitted)) return std::move(*refusal);
  request.caller = std::get<const Caller*>(admitted);
  if (request.caller != nullptr) request.tenant = request.caller->tenant;
  return std::nullopt;
}

Prepared prepare_reply(ServerContext& context, HttpRequest& request, HeaderList& headers) {
  ErrorBody error_body = error_body_of(request.path);
  try {
    if (auto refusal = admit(context, request)) return std::move(*refusal);
    std::optional<RateAccount> account = RateAccount::of(context, request);
    if (account) {
      if (auto refusal = account->admit(request, headers)) return std::move(*refusal);
    }
    Reply reply = context.router.dispatch(request);
    if (auto* response = std::get_if<HttpResponse>(&reply)) return std::move(*response);
    if (auto* encode = std::get_if<EncodeReply>(&reply)) {
      error_body = encode->error_body;
      LiveAnswer answer = start_encode(context, request, std::move(*encode), account);
      log_warnings(request, answer);
      return answer;
    }
    if (auto* feed = std::get_if<FeedReply>(&reply)) {
      LiveAnswer answer = LiveAnswer::start(std::move(*feed));
      log_warnings(request, answer);
      return answer;
    }
    auto& generation = std::get<Generation>(reply);
    error_body = generation.error_body;
    apply_qos_headers(request, generation);
    begin_record(context, request, generation);
    refuse_while_draining(context);
    if (generation.lease.use_count() == 0)
      generation.lease = context.keeper.use(generation.prompts.front().model);
    // Who counts what a model thinks needs its tokens one by one.
    const bool thinks = !context.engine.model_info(generation.prompts.front().model).reasoning.empty();
    const int token_batch = thinks ? 1 : context.options.token_batch;
    for (GenerateParams& params : generation.prompts) {
      params.cache_salt = cache_scope(request.caller, context.options.share_prefix_cache, params.cache_salt);
      if (request.caller != nullptr) params.user = request.caller->tenant;  // whatever the body says
      params.received = request.received;
      auto choices = std::make_shared<PromptChoices>(generation.n);
      params.on_ended = [trace = request.trace, account, choices](RequestTimeline timeline) {
        if (account) account->charge(timeline.prompt_tokens + timeline.generated_tokens);
        trace->add(std::move(timeline), choices.get());
      };
    }
    LiveAnswer answer = LiveAnswer::start(context.engine, context.admission, std::move(generation),
                                          *request.trace, token_batch);
    if (answer.streams()) answer.hold(count_stream(context));
    log_warnings(request, answer);
    return answer;
  } catch (const Error& error) {
    return failure_response(error, error_body);
  } catch (const std::exception& error) {
    log::error("{} {} {} failed: {}", request.id, request.method, request.path, error.what());
    return failure_response(Error(ErrorCode::kInternal, fmt::format("the request failed: {}", error.what())),
                            error_body);
  }
}

}  // namespace mlxs
