#include "cli/server_flags.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cli/format.h"

namespace mlxs::cli {
namespace {

bool is_loopback(const std::string& host) {
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return host == "localhost";
}

int parse_mode(const std::string& text) {
  int mode = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (error == std::errc() && end == text.data() + text.size() && mode >= 0 && mode <= 0777) return mode;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("--unix-socket-mode {}", text),
              "give permission bits as chmod has them, such as 600 or 660", "unix_socket_mode");
}

// Seconds of the user's, milliseconds of ours.
void add_seconds(CLI::App& command, const char* name, int& milliseconds, double least, double most,
                 const std::string& help) {
  command
      .add_option_function<double>(
          name,
          [&milliseconds](double seconds) { milliseconds = static_cast<int>(std::lround(seconds * 1e3)); },
          fmt::format("{} (default: {:g})", help, milliseconds / 1e3))
      ->check(CLI::Range(least, most, fmt::format("{:g}..{:g}", least, most)))
      ->type_name("SECONDS");
}

void add_count(CLI::App& command, const char* name, std::int64_t& value, const std::string& help) {
  command.add_option(name, value, help + " (default: no limit)")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1'000'000'000'000}, ">= 0"));
}

void add_limits(CLI::App& command, ServerOptions& options) {
  const auto add_number = [&](const char* name, int& value, int least, int most, const char* help) {
    command.add_option(name, value, help)
        ->check(CLI::Range(least, most, fmt::format("{}..{}", least, most)))
        ->capture_default_str();
  };
  add_number("--io-threads", options.io_threads, 1, 256, "Threads that read and write sockets");
  add_number("--max-connections", options.max_connections, 1, 1'000'000,
             "Connections at once; one more is answered 503");
  add_number("--max-streams", options.max_streams, 1, 100'000,
             "Requests at once on one HTTP/2 connection or WebSocket");
  add_number("--max-websockets", options.max_websockets, 1, 1'000'000, "WebSockets at once");
  const auto add_size = [&](const char* name, std::size_t& value, const std::string& help) {
    command
        .add_option_function<std::string>(
            name,
            [&value, name](const std::string& text) {
              try {
                value = static_cast<std::size_t>(parse_bytes(text));
              } catch (const Error& error) {
                throw CLI::ValidationError(name, error.full());
              }
            },
            fmt::format("{} (default: {})", help, format_bytes(value)))
        ->type_name("BYTES");
  };
  add_size("--max-header-bytes", options.max_header_bytes,
           "A request's header; a larger one is answered 431");
  add_size("--max-body-bytes", options.max_body_bytes, "A request's body; a larger one is answered 413");
  add_size("--stream-buffer-bytes", options.stream_buffer_bytes,
           "What is held of a stream for a slow reader before it pauses");
  add_seconds(command, "--idle-timeout", options.idle_timeout_ms, 0.1, 86400,
              "Between two requests of a connection");
  add_seconds(command, "--request-timeout", options.request_timeout_ms, 0.1, 86400,
              "From a request's first byte to its last; then it is answered 408");
  add_seconds(command, "--write-timeout", options.write_timeout_ms, 0.1, 86400,
              "For which a client may take nothing of its answer");
  add_seconds(command, "--keep-alive", options.keep_alive_ms, 0, 86400,
              "After which a silent stream of events says that it is there; 0: never");
}

}  // namespace

void add_server_flags(CLI::App& command, ServerFlags& flags) {
  ServerOptions& options = flags.options;
  command.add_option("--host", options.host, "Address to listen on")
      ->each([&flags](const std::string&) { flags.address_given = true; })
      ->capture_default_str();
  command.add_option("--port", options.port, "Port; 0 takes a free one")
      ->check(CLI::Range(0, 65535, "0..65535"))
      ->each([&flags](const std::string&) { flags.address_given = true; })
      ->capture_default_str();
  command.add_option("--unix-socket", options.unix_socket,
                     "Listen on a Unix socket at this path; on a port only if --host or --port is given too");
  command.add_option("--unix-socket-mode", flags.unix_socket_mode, "Who may connect to it, as chmod has it")
      ->capture_default_str();
  command.add_flag("--insecure", flags.insecure,
                   "Allow a host that other machines can reach, without an API key");
  command.add_option("--tls-cert", options.tls_certificate_file,
                     "Serve over TLS: the PEM file of the certificate and its chain; SIGHUP reads it again");
  command.add_option("--tls-key", options.tls_key_file, "The PEM file of the certificate's key");
  command.add_option("--api-keys", flags.api_keys,
                     "File of API keys, a line each: SHA256-HEX TENANT [user|admin] [rpm=N] [tpm=N]; "
                     "MLXS_API_KEY adds one admin; SIGHUP reads it again");
  add_count(
      command, "--requests-per-minute", options.rate_limits.requests_per_minute,
      "Requests a minute of each key, but for admins' and those with rpm=; without keys: of each address");
  add_count(command, "--tokens-per-minute", options.rate_limits.tokens_per_minute,
            "Likewise tokens, of prompts and answers");
  command
      .add_option("--trusted-proxy", options.trusted_proxies,
                  "Address or network of a proxy (10.0.0.0/8, ::1, unix) whose Forwarded and X-Forwarded-For "
                  "tell the client's address; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--cors-origin", options.cors_origins,
                  "Let pages of this origin (https://host[:port]) use the server; may be repeated; "
                  "* lets every page")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag(
      "--share-prefix-cache", options.share_prefix_cache,
      "Let tenants reuse each other's computed prompts; each can then find out what others sent");
  command
      .add_option("--keep-requests", options.keep_requests,
                  "Requests whose record GET /v1/requests/{id} and `why` still know; 0: none")
      ->check(CLI::Range(0, 1'000'000, "0..1000000"))
      ->capture_default_str();
  command
      .add_option("--token-batch", options.token_batch,
                  "Tokens of a stream that are sent together; the first never waits")
      ->check(CLI::Range(1, 10, "1..10"))
      ->capture_default_str();
  command
      .add_option("--slow-reader", flags.slow_reader,
                  "What becomes of a stream whose reader takes nothing: pause, or cancel it in the end")
      ->check(CLI::IsMember({"pause", "cancel"}))
      ->capture_default_str();
  add_seconds(command, "--slow-reader-timeout", options.slow_reader_timeout_ms, 0.1, 86400,
              "After which --slow-reader cancel does so");
  add_limits(command, options);
}

ApiKeys read_api_keys(const ServerFlags& flags) {
  ApiKeys keys;
  if (!flags.api_keys.empty()) keys.add_file(flags.api_keys);
  const char* key = std::getenv("MLXS_API_KEY");
  if (key != nullptr && *key != '\0') keys.add(key, {.tenant = "default", .role = Role::kAdmin});
  return keys;
}

ServerOptions server_options(const ServerFlags& flags) {
  ServerOptions options = flags.options;
  options.keys = read_api_keys(flags);
  options.unix_socket_mode = parse_mode(flags.unix_socket_mode);
  options.listen_tcp = options.unix_socket.empty() || flags.address_given;
  options.slow_reader = flags.slow_reader == "cancel" ? SlowReader::kCancel : SlowReader::kPause;
  if (options.keys.empty() && !flags.insecure && options.listen_tcp && !is_loopback(options.host)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("--host {} can be reached from other machines, and there is no API key", options.host),
        "give --api-keys or MLXS_API_KEY; --insecure serves everybody all the same");
  }
  return options;
}

std::string server_url(const ServerOptions& options, int port) {
  if (!options.listen_tcp) return "unix:" + options.unix_socket;
  const bool v6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", options.tls_certificate_file.empty() ? "http" : "https", v6 ? "[" : "",
                     options.host, v6 ? "]" : "", port);
}

std::uint64_t raise_open_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  constexpr rlim_t kEnough = 1 << 20;  // macOS refuses "as many as there are"
  const rlim_t wanted = std::min(files.rlim_max, kEnough);
  if (files.rlim_cur < wanted) {
    files.rlim_cur = wanted;
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0) ::getrlimit(RLIMIT_NOFILE, &files);
  }
  return files.rlim_cur;
}

}  // namespace mlxs::cli
