// `serve MODEL…`: engine, metrics, HTTP server and registry put together; ends by draining.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/config_flags.h"
#include "cli/engine_flags.h"
#include "cli/signals.h"
#include "fleet/heartbeat.h"
#include "serve/server.h"
#include "telemetry/metal_metrics.h"
#include "telemetry/metrics.h"

namespace mlxs::cli {
namespace {

using config::Settings;

struct ServeFlags {
  std::vector<std::string> models;
  ConfigFlags config;
};

bool is_loopback(const std::string& host) {
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return host == "localhost";
}

std::string base_url(const ServerOptions& server, int port) {
  const bool v6 = server.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", server.tls_certificate_file.empty() ? "http" : "https", v6 ? "[" : "",
                     server.host, v6 ? "]" : "", port);
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

// Throws if others could reach a server that asks nobody for a key.
ApiKeys read_api_keys(const Settings& settings) {
  ApiKeys keys;
  if (!settings.api_keys_file.empty()) keys.add_file(settings.api_keys_file);
  if (!settings.api_key.empty()) keys.add(settings.api_key, {.tenant = "default", .role = Role::kAdmin});
  if (keys.empty() && !settings.insecure && !is_loopback(settings.server.host)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--host {} can be reached from other machines, and there is no API key",
                            settings.server.host),
                "give --api-keys or MLXS_API_KEY; --insecure serves everybody all the same");
  }
  return keys;
}

// What it says is logged; its level and folder hold for the whole process, so before the first thread.
Settings read_settings(const ServeFlags& flags) {
  const config::Config read = load_config(flags.config);
  if (flags.models.empty() && read.settings.models.empty()) throw CLI::RequiredError("MODEL");
  if (read.of("log.level").from != config::Effective::From::kDefault) init_logging(read.settings.log_level);
  if (!read.file.empty()) {
    log::info("configuration: {}{}", read.file,
              read.environment.empty() ? "" : ", with environments." + read.environment);
  }
  for (const std::string& warning : read.warnings) log::warn("{}", warning);
  Settings settings = read.settings;
  if (!settings.engine.cache_dir.empty()) setenv("MLXS_CACHE_DIR", settings.engine.cache_dir.c_str(), 1);
  if (!flags.models.empty()) settings.models = flags.models;
  return settings;
}

void reload_tls(Server& server) {
  try {
    server.reload_tls();
    log::info("the TLS certificate was read again");
  } catch (const Error& error) {
    log::error("the TLS certificate stays as it was: {}", error.full());
  }
}

int serve(const ServeFlags& flags) {
  const Settings settings = read_settings(flags);
  ServerOptions server_options = settings.server;
  server_options.keys = read_api_keys(settings);
  std::optional<RedisUrl> registry;
  if (!settings.registry.empty()) registry = RedisUrl::parse(settings.registry);

  TerminationSignals signals(!server_options.tls_certificate_file.empty());  // before the first thread
  const auto metrics = std::make_shared<MetricsObserver>();
  EngineOptions options = settings.engine;
  options.max_loaded_models = std::max(options.max_loaded_models, static_cast<int>(settings.models.size()));
  options.observer = metrics;
  const auto engine = Engine::create(options);

  // The port first: one that is taken fails before a model is loaded, and probes see "not ready" instead of
  // nothing.
  Server server(server_options, *engine, [&] {
    std::string page = metrics->render(engine->scheduler_stats());
    if (options.metal_optimizations.expose_metrics)
      page += metal_metrics(engine->metal_optimizations_stats());
    return page;
  });
  server.start();
  const std::string url = base_url(server_options, server.port());

  for (const std::string& model : settings.models) {
    fetch_if_absent(model);
    const ModelInfo info = engine->load_model({.model = model,
                                               .served_name = {},
                                               .context_length = settings.context_length,
                                               .force = settings.force_load});
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

  const double drain_timeout_s = settings.drain_timeout_ms / 1e3;
  log::info("draining: running requests may take {:g} s more; a second signal ends them at once",
            drain_timeout_s);
  if (heartbeat) heartbeat->stop();
  signals.on_hangup(nullptr);  // the server goes before the signals do
  server.drain(drain_timeout_s);
  server.stop();
  return 0;
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve models over HTTP (OpenAI API)");
  command->add_option("MODEL", flags->models,
                      std::string(kModelHelp) + "; one or more (default: those of the configuration)");
  add_config_flags(*command, flags->config);
  command->footer(
      "Prints one line on stdout when the first token can be served.\n"
      "SIGTERM or Ctrl-C drains: no new requests, running ones finish (status 0); a second one ends at once "
      "(status 1).\n"
      "Every flag is a key of the configuration file too, and of the environment: mlx-serving config "
      "--explain.\n\n"
      "Examples:\n"
      "  mlx-serving serve smollm2\n"
      "  mlx-serving serve ./a.gguf ./b.gguf --port 9000 --kv-cache-bytes 2GiB\n"
      "  mlx-serving serve smollm2 --registry redis://127.0.0.1:6379");
  command->callback([flags, &action] { action = [flags] { return serve(*flags); }; });
}

}  // namespace mlxs::cli
