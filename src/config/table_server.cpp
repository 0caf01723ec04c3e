// The keys of the server: where it listens, whom it lets in, what one client may take.
#include "config/table.h"

namespace mlxs::config {
namespace {

constexpr double kDayMs = 86'400'000;

}  // namespace

std::vector<Key> server_keys() {
  return {
      MLXS_KEY("server.host", server.host)
          .flag("--host")
          .says("Address to listen on; one that other machines can reach needs an API key"),
      MLXS_KEY("server.port", server.port).range(0, 65535).flag("--port").says("Port; 0 takes a free one"),
      MLXS_KEY("server.drain_timeout_ms", drain_timeout_ms)
          .range(0, kDayMs)
          .in("ms")
          .flag("--drain-timeout", 1000)
          .says("What running requests get after SIGTERM or Ctrl-C"),
      MLXS_KEY("server.insecure", insecure)
          .flag("--insecure")
          .says("Allow a host that other machines can reach, without an API key"),
      MLXS_KEY("server.api_keys_file", api_keys_file)
          .flag("--api-keys")
          .says("File of API keys, a line each: SHA256-HEX TENANT [user|admin]; MLXS_API_KEY adds one admin"),
      MLXS_KEY("server.api_key", api_key)
          .env("MLXS_API_KEY")
          .hidden()
          .says("One more API key, an admin's (tenant `default`)"),
      MLXS_KEY("server.tls.cert_file", server.tls_certificate_file)
          .flag("--tls-cert")
          .also("transport.http2.tls.cert_file")
          .says("Serve over TLS: the PEM file of the certificate and its chain; SIGHUP reads it again"),
      MLXS_KEY("server.tls.key_file", server.tls_key_file)
          .flag("--tls-key")
          .also("transport.http2.tls.key_file")
          .says("The PEM file of the certificate's key"),
      MLXS_KEY("server.cors_origins", server.cors_origins)
          .flag("--cors-origin")
          .says("Let pages of this origin (https://host[:port]) use the server; may be repeated; * lets "
                "every page"),
      MLXS_KEY("server.share_prefix_cache", server.share_prefix_cache)
          .flag("--share-prefix-cache")
          .says("Let tenants reuse each other's computed prompts; each can then find out what others sent"),
      MLXS_KEY("server.keep_requests", server.keep_requests)
          .range(0, 1'000'000)
          .flag("--keep-requests")
          .says("Requests whose record GET /v1/requests/{id} and `why` still know; 0: none"),
      MLXS_KEY("server.io_threads", server.io_threads)
          .range(1, 64)
          .says("Threads of sockets; each runs its share of the connections"),
      MLXS_KEY("server.max_connections", server.max_connections)
          .range(1, 1'000'000)
          .says("Connections at once; one more is answered 503"),
      MLXS_KEY("server.max_header_bytes", server.max_header_bytes)
          .bytes()
          .range(1024, 16 << 20)
          .says("A request's longest head"),
      MLXS_KEY("server.max_body_bytes", server.max_body_bytes)
          .bytes()
          .range(1024, 1 << 30)
          .says("A request's longest body"),
      MLXS_KEY("server.idle_timeout_ms", server.idle_timeout_ms)
          .range(10, kDayMs)
          .in("ms")
          .says("Between two requests of a connection; then it is closed"),
      MLXS_KEY("server.request_timeout_ms", server.request_timeout_ms)
          .range(10, kDayMs)
          .in("ms")
          .says("From the first to the last byte of a request; then 408"),
      MLXS_KEY("server.write_timeout_ms", server.write_timeout_ms)
          .range(10, kDayMs)
          .in("ms")
          .says("A reader that takes nothing for so long is given up, and its request with it"),
      MLXS_KEY("server.send_buffer_bytes", server.send_buffer_bytes)
          .bytes()
          .range(4096, 64 << 20)
          .says("What the kernel holds for a slow reader before its stream pauses"),
      MLXS_KEY("server.max_choices", server.admission.max_choices)
          .range(1, 4096)
          .says("Answers of one request: prompts times n"),
      MLXS_KEY("server.max_stop_strings", server.admission.max_stop_strings)
          .range(1, 16)
          .says("Stop strings of one request"),
      MLXS_KEY("stream_registry.max_active_streams", server.admission.max_in_flight)
          .range(1, 1'000'000)
          .says("Answers on their way at once, running and waiting, of all clients; beyond, 429 with "
                "Retry-After"),
      MLXS_KEY("transport.http2.max_streams_per_session", server.max_streams)
          .range(1, 65'535)
          .says("Requests at once on one HTTP/2 connection or WebSocket"),
      MLXS_KEY("transport.websocket.max_connections", server.max_websockets)
          .range(1, 1'000'000)
          .says("WebSockets at once; one more is closed with code 1008"),
      MLXS_KEY("transport.websocket.max_message_bytes", server.max_websocket_message_bytes)
          .bytes()
          .range(1024, 1 << 30)
          .says("Longest message; a longer one closes the WebSocket with code 1009"),
      MLXS_KEY("transport.websocket.idle_timeout_ms", server.websocket_idle_timeout_ms)
          .range(10, kDayMs)
          .in("ms")
          .says("Without a request; then the WebSocket is closed with code 1000"),
      MLXS_KEY("cpu_optimizations.parallel_tokenizer.num_threads", server.worker_threads)
          .range(1, 16)
          .also("cpu_optimizations.tokenizer.num_threads")
          .says("Threads that parse bodies and tokenize prompts, beside the engine"),
      MLXS_KEY("horizontal_scaling.instance_registry.redis_url", registry)
          .flag("--registry")
          .hidden()
          .says("Register this server in Redis: redis://[[USER]:PASSWORD@]HOST[:PORT]"),
      MLXS_KEY("log.level", log_level)
          .one_of({"trace", "debug", "info", "warn", "error", "critical", "off"})
          .env("KR_MLX_LOG_LEVEL")
          .says("What is logged on stderr"),
  };
}

}  // namespace mlxs::config
