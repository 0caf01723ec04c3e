// The HTTP server: sockets, connections, limits and draining. What requests mean is the dialects'
// business. Owns its I/O and worker threads; refers to the Engine, which outlives it. start() throws kIo if
// the port cannot be had; after that a connection's failure ends that connection only. Methods are for one
// controlling thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "admit/admission.h"
#include "admit/rate_limiter.h"
#include "mlxs/engine.h"
#include "serve/api_keys.h"
#include "serve/sampling_defaults.h"
#include "telemetry/request_log.h"
#include "telemetry/server_counters.h"
#include "telemetry/sliding_rate.h"

namespace mlxs {

enum class SlowReader : std::uint8_t { kPause, kCancel };

struct ServerOptions {
  std::string host = "127.0.0.1";                  // name or address, IPv4 or IPv6
  std::string unix_socket;                         // path; listens there as well; empty: does not
  std::string tls_certificate_file, tls_key_file;  // PEM; both or none: cleartext
  std::vector<std::string> cors_origins;           // of web pages that may use the server; "*": every page
  std::vector<std::string>
      trusted_proxies;  // whose headers say where a request comes from (client_address.h)
  ApiKeys keys;         // none: nobody is asked for one
  // Of each key, but for admins' and those that have their own; of each address, where nobody is asked for
  // one.
  RateLimits rate_limits;
  AdmissionLimits admission;
  std::shared_ptr<RequestListener> listener;               // hears of every request that is over; may be null
  std::shared_ptr<ServerCounters> counters;                // null: the server makes its own
  std::function<std::string()> flight;                     // the flight recorder's bytes; null: there is none
  std::function<std::vector<ThroughputNow>()> throughput;  // null: nobody counts it
  std::size_t max_header_bytes = 64 << 10;
  std::size_t max_body_bytes = 10 << 20;
  std::size_t max_websocket_message_bytes = 1 << 20;
  std::size_t stream_buffer_bytes = 64 << 10;  // what this program holds of each stream,
  int send_buffer_bytes = 128 << 10;  // and what the kernel holds for a slow reader before its stream pauses
  int unix_socket_mode = 0600;        // who may connect, as chmod has it
  int io_threads = 1;                 // each runs its share of the connections
  int worker_threads = 2;             // parse bodies and tokenize prompts
  int max_connections = 16384;        // one more is answered 503
  int max_streams = 100;              // requests at once on one HTTP/2 connection
  int max_websockets = 200;           // one more is closed with code 1008
  int websocket_idle_timeout_ms = 600'000;  // without a request: closed with code 1000
  int idle_timeout_ms = 75'000;             // between two requests of a connection: closed without a word
  int request_timeout_ms = 30'000;          // first byte → last byte of a request: 408
  int write_timeout_ms = 120'000;           // a reader that takes nothing for so long is given up
  int slow_reader_timeout_ms = 5000;        // and with SlowReader::kCancel after this already
  int token_batch = 1;         // 1 … 10: tokens of a stream that are sent together; the first never waits
  int keep_alive_ms = 15'000;  // a silent stream of events says so often that it is there; 0: never
  int keep_requests = 1000;    // whose record GET /v1/requests/{id} still knows; 0: none
  std::uint16_t port = 8000;   // 0: a free one
  bool listen_tcp = true;
  SlowReader slow_reader = SlowReader::kPause;  // a stream whose reader takes nothing pauses, or ends
  SamplingDefaults sampling_defaults = SamplingDefaults::kDialect;
  bool log_prompts = false;         // records, and so the access log, have the prompt
  bool share_prefix_cache = false;  // among tenants: what one has sent can then be told from others' speed
  bool tracing = false;  // traces are exported: responses say theirs, `trace_share` of new ones are sampled
  double trace_share = 0;

  // How long a stream's reader may take nothing.
  int stream_patience_ms() const {
    return slow_reader == SlowReader::kCancel ? std::min(slow_reader_timeout_ms, write_timeout_ms)
                                              : write_timeout_ms;
  }
};

class Server {
 public:
  // metrics: the text of GET /metrics, called on an I/O thread; null: no such route.
  Server(const ServerOptions& options, Engine& engine, std::function<std::string()> metrics);
  ~Server();  // stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void start();  // binds and listens; returns when connections are accepted
  std::uint16_t port() const;
  // Reads certificate and key again, for connections to come. Throws kInvalidArgument and keeps the old ones.
  void reload_tls();
  // For requests to come. Throws kInvalidArgument if there were keys and there would be none.
  void replace_keys(ApiKeys keys);

  // Refuses new work, closes idle connections, waits for running requests; cancels those that need longer
  // than timeout_s.
  void drain(double timeout_s);
  void stop();  // cancels everything and joins the threads; idempotent

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
