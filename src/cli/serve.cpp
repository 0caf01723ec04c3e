// `serve MODEL…`: engine, metrics, HTTP server and registry put together; ends by draining.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/log_control.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/scheduler_flags.h"
#include "cli/signals.h"
#include "cli/telemetry_flags.h"
#include "fleet/heartbeat.h"
#include "serve/server.h"

namespace mlxs::cli {
namespace {

struct ServeFlags {
  std::vector<std::string> models;
  std::string host = "127.0.0.1";
  int port = 8000;
  int max_running = EngineOptions{}.max_running;
  double drain_timeout_s = 30;
  bool insecure = false;
  std::string api_keys;
  std::string tls_cert, tls_key;
  std::vector<std::string> cors_origins;
  bool share_prefix_cache = false;
  std::string prefix_cache_dir;
  std::uint64_t prefix_cache_bytes = EngineOptions{}.prefix_cache_disk_bytes;
  std::string registry;
  int keep_requests = ServerOptions{}.keep_requests;
  EngineFlags engine;
  SchedulerFlags scheduler;
  TelemetryFlags telemetry;
};

bool is_loopback(const std::string& host) {
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return host == "localhost";
}

std::string base_url(const ServeFlags& flags, int port) {
  const bool v6 = flags.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", flags.tls_cert.empty() ? "http" : "https", v6 ? "[" : "", flags.host,
                     v6 ? "]" : "", port);
}

void print_ready(const std::string& url, const std::vector<ModelInfo>& models) {
  const auto found = std::ranges::find(models, false, &ModelInfo::is_encoder);
  if (found == models.end()) {
    fmt::print(
        "ready: {0} on {1}  try: curl {1}/v1/{2} -H 'Content-Type: application/json' -d "
        "'{{\"model\":\"{0}\",{3}}}'\n",
        models.front().id, url, models.front().scores ? "score" : "embeddings",
        models.front().scores ? R"("text_1":"Hello!","text_2":"Hi!")" : R"("input":"Hello!")");
    std::fflush(stdout);
    return;
  }
  const std::string& model = found->id;
  fmt::print(
      "ready: {0} on {1}  try: curl {1}/v1/chat/completions -H 'Content-Type: application/json' "
      "-d "
      "'{{\"model\":\"{0}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}],\"max_tokens\":64}}'"
      "\n",
      model, url);
  std::fflush(stdout);
}

Instance describe_instance(const std::string& url, const std::vector<ModelInfo>& models) {
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  Instance instance{.id = make_instance_id(now.count()),
                    .endpoint = url,
                    .models = {},
                    .version = MLXS_VERSION,
                    .pid = getpid(),
                    .started_unix_s = now.count()};
  for (const ModelInfo& model : models) instance.models.push_back(model.id);
  return instance;
}

// From the file and the environment. Throws if others could reach a server that asks nobody for a key.
ApiKeys read_api_keys(const ServeFlags& flags) {
  ApiKeys keys;
  if (!flags.api_keys.empty()) keys.add_file(flags.api_keys);
  const char* key = std::getenv("MLXS_API_KEY");
  if (key != nullptr && *key != '\0') keys.add(key, {.tenant = "default", .role = Role::kAdmin});
  if (keys.empty() && !flags.insecure && !is_loopback(flags.host)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("--host {} can be reached from other machines, and there is no API key", flags.host),
        "give --api-keys or MLXS_API_KEY; --insecure serves everybody all the same");
  }
  return keys;
}

void reload_tls(Server& server) {
  try {
    server.reload_tls();
    log::info("the TLS certificate was read again");
  } catch (const Error& error) {
    log::error("the TLS certificate stays as it was: {}", error.full());
  }
}

// Level debug, and back to what it was.
void toggle_debug() {
  static std::string before = "info";
  const bool on = log::level() != "debug";
  if (on) before = log::level();
  log::set_level("info");
  log::info("SIGUSR2: log level {}", on ? "debug" : before == "debug" ? "info" : before);
  log::set_level(on ? "debug" : before == "debug" ? "info" : before);
}

int serve(const ServeFlags& flags) {
  ApiKeys keys = read_api_keys(flags);
  std::optional<RedisUrl> registry;
  if (!flags.registry.empty()) registry = RedisUrl::parse(flags.registry);

  TerminationSignals signals(!flags.tls_cert.empty());  // before the first thread
  const Telemetry telemetry(flags.telemetry);
  signals.on_user(SIGUSR1, [&telemetry] { telemetry.dump_flight("asked"); });
  signals.on_user(SIGUSR2, toggle_debug);
  EngineOptions options = engine_options(flags.engine);
  options.max_running = flags.max_running;
  options.prefix_cache_dir = flags.prefix_cache_dir;
  options.prefix_cache_disk_bytes = flags.prefix_cache_bytes;
  apply(flags.scheduler, options);
  options.max_loaded_models = std::max(options.max_loaded_models, static_cast<int>(flags.models.size()));
  options.observer = telemetry.observer();
  const auto engine = Engine::create(options);
  const TelemetryThreads telling(telemetry, *engine);

  // The port first: one that is taken fails before a model is loaded, and probes see "not ready" instead of
  // nothing.
  ServerOptions server_options;
  server_options.host = flags.host;
  server_options.port = static_cast<std::uint16_t>(flags.port);
  server_options.tls_certificate_file = flags.tls_cert;
  server_options.tls_key_file = flags.tls_key;
  server_options.cors_origins = flags.cors_origins;
  server_options.keys = std::move(keys);
  server_options.share_prefix_cache = flags.share_prefix_cache;
  server_options.keep_requests = flags.keep_requests;
  telling.apply(server_options);
  if (telemetry.recorder()) {
    server_options.flight = [recorder = telemetry.recorder()] { return recorder->snapshot("asked"); };
  }
  Server server(server_options, *engine, telling.metrics(options.metal_optimizations.expose_metrics));
  server.start();
  const std::string url = base_url(flags, server.port());

  for (const std::string& model : flags.models) {
    fetch_if_absent(model);
    const ModelInfo info = engine->load_model({.model = model,
                                               .served_name = {},
                                               .context_length = flags.engine.context,
                                               .force = flags.engine.force});
    engine->warmup_model(info.id);
    log::info("{}: {} {}, context {}, loaded in {:.2f} s", info.id, info.architecture, info.quantization,
              info.context_length, info.load_seconds);
  }
  const std::vector<ModelInfo> models = engine->list_models();
  std::optional<Heartbeat> heartbeat;
  if (registry) heartbeat.emplace(*registry, describe_instance(url, models));

  signals.on_hangup([&server] { reload_tls(server); });
  signals.start_draining_on_signal();
  print_ready(url, models);
  signals.wait();

  log::info("draining: running requests may take {:g} s more; a second signal ends them at once",
            flags.drain_timeout_s);
  if (heartbeat) heartbeat->stop();
  signals.on_hangup(nullptr);  // the server goes before the signals do
  signals.on_user(SIGUSR1, nullptr);
  server.drain(flags.drain_timeout_s);
  server.stop();
  return 0;
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve models over HTTP (OpenAI API)");
  command->add_option("MODEL", flags->models, std::string(kModelHelp) + "; one or more")->required();
  command->add_option("--host", flags->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", flags->port, "Port; 0 takes a free one")
      ->check(CLI::Range(0, 65535, "0..65535"))
      ->capture_default_str();
  command->add_option("--max-running", flags->max_running, "Requests that run at once, per model")
      ->check(CLI::Range(1, 4096, "1..4096"))
      ->capture_default_str();
  command
      ->add_option("--drain-timeout", flags->drain_timeout_s,
                   "Seconds that running requests get after SIGTERM or Ctrl-C")
      ->check(CLI::Range(0.0, 86400.0, "0..86400"))
      ->capture_default_str();
  command->add_option("--registry", flags->registry,
                      "Register this server in Redis: redis://[[USER]:PASSWORD@]HOST[:PORT]");
  command->add_flag("--insecure", flags->insecure,
                    "Allow a host that other machines can reach, without an API key");
  command->add_option("--tls-cert", flags->tls_cert,
                      "Serve over TLS: the PEM file of the certificate and its chain; SIGHUP reads it again");
  command->add_option("--tls-key", flags->tls_key, "The PEM file of the certificate's key");
  command->add_option("--api-keys", flags->api_keys,
                      "File of API keys, a line each: SHA256-HEX TENANT [user|admin]; "
                      "MLXS_API_KEY adds one admin");
  command
      ->add_option("--cors-origin", flags->cors_origins,
                   "Let pages of this origin (https://host[:port]) use the server; may be repeated; "
                   "* lets every page")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_flag(
      "--share-prefix-cache", flags->share_prefix_cache,
      "Let tenants reuse each other's computed prompts; each can then find out what others sent");
  command
      ->add_option("--keep-requests", flags->keep_requests,
                   "Requests whose record GET /v1/requests/{id} and `why` still know; 0: none")
      ->check(CLI::Range(0, 1'000'000, "0..1000000"))
      ->capture_default_str();
  command->add_option("--prefix-cache-dir", flags->prefix_cache_dir,
                      "Keep computed prompts in this folder, so that they outlive the server (cpu backend)");
  add_bytes_option(*command, "--prefix-cache-bytes", flags->prefix_cache_bytes,
                   "What that folder may hold, such as 10GiB (default: 1GiB); the least recently used goes");
  add_telemetry_flags(*command, flags->telemetry);
  add_scheduler_flags(*command, flags->scheduler);
  add_engine_flags(*command, flags->engine);
  command->footer(
      "Prints one line on stdout when the first token can be served.\n"
      "SIGTERM or Ctrl-C drains: no new requests, running ones finish (status 0); a second one ends at once "
      "(status 1).\n"
      "SIGUSR1 writes the last steps into a file for `trace`; SIGUSR2 turns the log's level debug on and "
      "off.\n\n"
      "Examples:\n"
      "  mlx-serving serve smollm2\n"
      "  mlx-serving serve ./a.gguf ./b.gguf --port 9000 --kv-cache-bytes 2GiB\n"
      "  mlx-serving serve smollm2 --registry redis://127.0.0.1:6379");
  command->callback([flags, &action] { action = [flags] { return serve(*flags); }; });
}

}  // namespace mlxs::cli
