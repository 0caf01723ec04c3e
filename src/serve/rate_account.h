// The rate limits of one request's caller: a key's own, or the server's for every key, or for every address
// where nobody is asked for a key. Told in OpenAI's x-ratelimit headers. Any thread; charge()
// also when the server is gone.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "admit/rate_limiter.h"
#include "serve/http.h"
#include "serve/prepare.h"
#include "serve/server_context.h"

namespace mlxs {

class RateAccount {
 public:
  // Nullopt: nothing limits this request: its caller has no limits, or it asks for no work.
  static std::optional<RateAccount> of(ServerContext& context, const HttpRequest& request);

  // Counts the request and tells its response what is left; 429 with the time to wait if there is nothing.
  std::optional<HttpResponse> admit(const HttpRequest& request, HeaderList& headers) const;
  void charge(int tokens) const { limiter_->charge(caller_, limits_, tokens); }

 private:
  RateAccount(ServerContext& context, std::string caller, RateLimits limits)
      : context_(&context), limiter_(context.rates), caller_(std::move(caller)), limits_(limits) {}

  ServerContext* context_;
  std::shared_ptr<RateLimiter> limiter_;
  std::string caller_;
  RateLimits limits_;
};

// Seconds as OpenAI writes them: "120ms", "1.5s", "6m0s".
std::string rate_duration(double seconds);

}  // namespace mlxs
