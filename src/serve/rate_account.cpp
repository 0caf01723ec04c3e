#include "serve/rate_account.h"

#include <fmt/format.h>

#include <cmath>

#include "serve/dialects.h"
#include "serve/json_text.h"

namespace mlxs {
namespace {

void tell(HeaderList& headers, const char* what, const RateState& state) {
  if (state.limit == 0) return;
  headers.emplace_back(fmt::format("x-ratelimit-limit-{}", what), fmt::format("{}", state.limit));
  headers.emplace_back(fmt::format("x-ratelimit-remaining-{}", what), fmt::format("{}", state.remaining));
  headers.emplace_back(fmt::format("x-ratelimit-reset-{}", what), rate_duration(state.reset_s));
}

}  // namespace

std::string rate_duration(double seconds) {
  const auto ms = static_cast<std::int64_t>(std::ceil(seconds * 1e3));
  if (ms < 1000) return fmt::format("{}ms", ms);
  const std::int64_t minutes = ms / 60'000;
  const double rest = static_cast<double>(ms % 60'000) / 1e3;
  return minutes > 0 ? fmt::format("{}m{:g}s", minutes, rest) : fmt::format("{:g}s", rest);
}

std::optional<RateAccount> RateAccount::of(ServerContext& context, const HttpRequest& request) {
  if (request.method != "POST") return std::nullopt;
  RateLimits limits = context.options.rate_limits;
  std::string caller = "address " + request.peer;
  if (const Caller* key = request.caller) {
    if (key->role == Role::kAdmin) limits = {};
    limits.requests_per_minute = key->requests_per_minute.value_or(limits.requests_per_minute);
    limits.tokens_per_minute = key->tokens_per_minute.value_or(limits.tokens_per_minute);
    caller = "key " + key->key_id;
  }
  if (!limits.any()) return std::nullopt;
  return RateAccount(context, std::move(caller), limits);
}

std::optional<HttpResponse> RateAccount::admit(const HttpRequest& request, HeaderList& headers) const {
  const RateDecision decision = limiter_->admit(caller_, limits_);
  tell(headers, "requests", decision.requests);
  tell(headers, "tokens", decision.tokens);
  if (decision.admitted) return std::nullopt;
  ++context_->options.counters->rate_limited;
  const auto seconds = static_cast<int>(std::ceil(decision.retry_after_s));
  const RateState& state = decision.out_of_tokens ? decision.tokens : decision.requests;
  const char* const what = decision.out_of_tokens ? "tokens" : "requests";
  Error error(ErrorCode::kOverloaded,
              fmt::format("the limit of {} {} a minute is used up", state.limit, what),
              fmt::format("try again in {} s", seconds));
  error.set_retry_after_s(seconds);
  HttpResponse response = failure_response(error, error_body_of(request.path));
  if (error_body_of(request.path) == nullptr) {  // OpenAI has names of its own for these
    response.body =
        fmt::format(R"({{"error":{{"message":{},"type":"{}","param":null,"code":"rate_limit_exceeded"}}}})",
                    json_string(error.full()), what);
  }
  return response;
}

}  // namespace mlxs
