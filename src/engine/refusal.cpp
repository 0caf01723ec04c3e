#include "engine/refusal.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace mlxs {
namespace {

constexpr double kLongestRetrySeconds = 3600;

// Whole seconds, as Retry-After has them; the text says the same number.
int retry_seconds(double estimate) {
  return static_cast<int>(std::ceil(std::clamp(estimate, 1.0, kLongestRetrySeconds)));
}

Error come_back(std::string message, double estimate) {
  const int seconds = retry_seconds(estimate);
  Error error(ErrorCode::kOverloaded, std::move(message), fmt::format("try again in {} s", seconds));
  error.set_retry_after_s(seconds);
  return error;
}

}  // namespace

Error refusal_error(const Refusal& refusal, const Request& request, const std::string& model,
                    int context_limit) {
  switch (refusal.cause) {
    case RefusalCause::kQueueFull:
      return come_back(fmt::format("the queue of '{}' is full", model), refusal.retry_after_s);
    case RefusalCause::kDeadline: {
      const std::string late =
          fmt::format("the first token would come after {:.0f} ms, the request wants it within {:.0f}",
                      refusal.predicted_ttft_s * 1e3, to_ms(request.slo.ttft));
      if (refusal.retry_after_s > 0) return come_back(late, refusal.retry_after_s);
      return Error(ErrorCode::kOverloaded, late,
                   "its own prompt takes longer than that here: raise slo_ttft_ms, or shorten the prompt");
    }
    case RefusalCause::kTooLong:
      break;
  }
  return Error(ErrorCode::kContextOverflow,
               fmt::format("{} prompt tokens and {} new tokens can never fit {} tokens of KV cache",
                           request.prompt_tokens, request.max_new_tokens, context_limit));
}

}  // namespace mlxs
