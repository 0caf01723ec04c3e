// The keys of the server: where it listens, whom it lets in, what one client may take.
#include "config/table.h"

namespace mlxs::config {

std::vector<Key> server_keys() {
  return {
      MLXS_KEY("server.host", server.host)
          .flag("--host")
          .says("Address to listen on; one that other machines can reach needs an API key"),
      MLXS_KEY("server.port", server.port).range(0, 65535).flag("--port").says("Port; 0 takes a free one"),
      MLXS_KEY("server.unix_socket", server.unix_socket)
          .flag("--unix-socket")
          .says("Listen on a Unix socket at this path; on a port only if --host or --port is given too"),
      MLXS_KEY("server.unix_socket_mode", unix_socket_mode)
          .flag("--unix-socket-mode")
          .says("Who may connect to it, as chmod has it"),
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
          .says("File of API keys, a line each: SHA256-HEX TENANT [user|admin] [rpm=N] [tpm=N]; "
                "MLXS_API_KEY adds one admin; SIGHUP reads it again"),
      MLXS_KEY("server.api_key", api_key)
          .env("MLXS_API_KEY")
          .hidden()
          .says("One more API key, an admin's (tenant `default`)"),
      MLXS_KEY("server.rate_limits.requests_per_minute", server.rate_limits.requests_per_minute)
          .range(1, 1e12)
          .or_zero("no limit")
          .flag("--requests-per-minute")
          .says("Requests a minute of each key, but for admins' and those with rpm=; without keys: of each "
                "address"),
      MLXS_KEY("server.rate_limits.tokens_per_minute", server.rate_limits.tokens_per_minute)
          .range(1, 1e12)
          .or_zero("no limit")
          .flag("--tokens-per-minute")
          .says("Likewise tokens, of prompts and answers"),
      MLXS_KEY("server.trusted_proxies", server.trusted_proxies)
          .flag("--trusted-proxy")
          .says("Address or network of a proxy (10.0.0.0/8, ::1, unix) whose Forwarded and X-Forwarded-For "
                "tell the client's address; may be repeated"),
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
          .range(1, 256)
          .flag("--io-threads")
          .says("Threads that read and write sockets; each runs its share of the connections"),
      MLXS_KEY("server.max_connections", server.max_connections)
          .range(1, 1'000'000)
          .flag("--max-connections")
          .says("Connections at once; one more is answered 503"),
      MLXS_KEY("server.max_header_bytes", server.max_header_bytes)
          .bytes()
          .range(1024, 16 << 20)
          .flag("--max-header-bytes")
          .says("A request's header; a larger one is answered 431"),
      MLXS_KEY("server.max_body_bytes", server.max_body_bytes)
          .bytes()
          .range(1, 0x1p50)
          .flag("--max-body-bytes")
          .says("A request's body; a larger one is answered 413"),
      MLXS_KEY("server.idle_timeout_ms", server.idle_timeout_ms)
          .range(100, kDayMs)
          .in("ms")
          .flag("--idle-timeout", 1000)
          .says("Between two requests of a connection; then it is closed"),
      MLXS_KEY("server.request_timeout_ms", server.request_timeout_ms)
          .range(100, kDayMs)
          .in("ms")
          .flag("--request-timeout", 1000)
          .says("From the first to the last byte of a request; then it is answered 408"),
      MLXS_KEY("server.write_timeout_ms", server.write_timeout_ms)
          .range(100, kDayMs)
          .in("ms")
          .flag("--write-timeout", 1000)
          .says("A reader that takes nothing for so long is given up, and its request with it"),
      MLXS_KEY("server.send_buffer_bytes", server.send_buffer_bytes)
          .bytes()
          .range(4096, 64 << 20)
          .says("What the kernel holds for a slow reader before its stream pauses"),
      MLXS_KEY("server.stream_buffer_bytes", server.stream_buffer_bytes)
          .bytes()
          .range(1024, 1 << 30)
          .flag("--stream-buffer-bytes")
          .says("What this program holds of a stream for a slow reader before it pauses"),
      MLXS_KEY("server.slow_reader", slow_reader)
          .one_of({"pause", "cancel"})
          .flag("--slow-reader")
          .says("What becomes of a stream whose reader takes nothing: pause, or cancel it in the end"),
      MLXS_KEY("server.slow_reader_timeout_ms", server.slow_reader_timeout_ms)
          .range(100, kDayMs)
          .in("ms")
          .flag("--slow-reader-timeout", 1000)
          .says("After which server.slow_reader cancel does so"),
      MLXS_KEY("server.sampling_defaults", sampling_defaults)
          .one_of({"dialect", "model"})
          .flag("--sampling-defaults")
          .says("What a request leaves unsaid of temperature, top_p, top_k, min_p and repetition penalty is: "
                "what its dialect documents, or what the model's makers advise (generation_config.json)"),
      MLXS_KEY("server.token_batch", server.token_batch)
          .range(1, 10)
          .flag("--token-batch")
          .says("Tokens of a stream that are sent together; the first never waits"),
      MLXS_KEY("server.keep_alive_ms", server.keep_alive_ms)
          .range(1, kDayMs)
          .or_zero("never")
          .in("ms")
          .flag("--keep-alive", 1000)
          .says("After which a silent stream of events says that it is there"),
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
          .range(1, 100'000)
          .flag("--max-streams")
          .says("Requests at once on one HTTP/2 connection or WebSocket"),
      MLXS_KEY("transport.websocket.max_connections", server.max_websockets)
          .range(1, 1'000'000)
          .flag("--max-websockets")
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
  };
}

}  // namespace mlxs::config
