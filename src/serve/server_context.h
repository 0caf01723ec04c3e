// What all connections of a server share. Outlives them; the parts guard themselves.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <memory>
#include <string_view>

#include "admit/admission.h"
#include "admit/rate_limiter.h"
#include "mlxs/engine.h"
#include "serve/api_keys.h"
#include "serve/asio.h"
#include "serve/client_address.h"
#include "serve/cors.h"
#include "serve/model_keeper.h"
#include "serve/router.h"
#include "serve/server.h"
#include "serve/tls.h"
#include "telemetry/request_log.h"

namespace mlxs {

struct ServerContext {
  ServerOptions options;  // without the keys
  CurrentKeys keys;
  TrustedProxies proxies;
  std::shared_ptr<RateLimiter> rates;  // requests charge it when they end, which may be later than the server
  Engine& engine;
  ModelKeeper keeper;
  Router router;
  CorsPolicy cors;
  std::unique_ptr<TlsCredentials> tls;  // null: cleartext
  Admission admission;
  RequestLog requests;
  net::thread_pool workers;
  std::atomic<bool> draining{false};

  void note_slow_reader(std::string_view peer, int patience_ms) const;
};

}  // namespace mlxs
