// What all connections of a server share. Outlives them; the parts guard themselves.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <memory>

#include "admit/admission.h"
#include "mlxs/engine.h"
#include "serve/asio.h"
#include "serve/cors.h"
#include "serve/router.h"
#include "serve/server.h"
#include "serve/tls.h"
#include "telemetry/request_log.h"

namespace mlxs {

struct ServerContext {
  ServerOptions options;
  Engine& engine;
  Router router;
  CorsPolicy cors;
  std::unique_ptr<TlsCredentials> tls;  // null: cleartext
  Admission admission;
  RequestLog requests;
  net::thread_pool workers;
  std::atomic<bool> draining{false};
};

}  // namespace mlxs
