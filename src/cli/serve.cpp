// `serve MODEL…`: engine, metrics, HTTP server and registry put together; ends by draining.
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/log_control.h"
#include "cli/commands.h"
#include "cli/config_flags.h"
#include "cli/engine_flags.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/telemetry_parts.h"
#include "fleet/heartbeat.h"
#include "serve/server.h"

namespace mlxs::cli {
namespace {

using config::Settings;

struct ServeFlags {
  std::vector<std::string> models;
  ConfigFlags config;
};

// How curl gets to a server from this machine.
std::string curl_target(ServerOptions options, int port) {
  if (!options.listen_tcp) return fmt::format("--unix-socket {} http://localhost", options.unix_socket);
  if (options.host == "0.0.0.0" || options.host == "::") options.host = "localhost";
  return server_url(options, port);
}

void print_ready(const ServerOptions& options, int port, const std::vector<ModelInfo>& models) {
  const auto found = std::ranges::find(models, false, &ModelInfo::is_encoder);
  const ModelInfo& model = found == models.end() ? models.front() : *found;
  const std::string_view path = model.scores ? "score" : model.is_encoder ? "embeddings" : "chat/completions";
  const std::string_view fields = model.scores ? R"("text_1":"Hello!","text_2":"Hi!")"
                                  : model.is_encoder
                                      ? R"("input":"Hello!")"
                                      : R"("messages":[{"role":"user","content":"Hello!"}],"max_tokens":64)";
  const std::string line = fmt::format(
      "ready: {0} on {1}  try: curl {2}/v1/{3} {4}-H 'Content-Type: application/json' -d "
      "'{{\"model\":\"{0}\",{5}}}'\n",
      model.id, server_url(options, port), curl_target(options, port), path,
      options.keys.empty() ? "" : "-H \"Authorization: Bearer $MLXS_API_KEY\" ", fields);
  if (std::fputs(line.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return;
  log::warn("the ready line cannot be written to stdout: {}", std::strerror(errno));  // no reason to end
  if (std::freopen("/dev/null", "w", stdout) == nullptr) log::warn("/dev/null: {}", std::strerror(errno));
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

// What it says is logged; its level and folder hold for the whole process, so before the first thread.
config::Config read_config(const ServeFlags& flags) {
  config::Config read = load_config(flags.config);
  if (flags.models.empty() && read.settings.models.empty()) throw CLI::RequiredError("MODEL");
  apply_log_settings(read.settings.telemetry);
  if (!read.file.empty()) {
    log::info("configuration: {}{}", read.file,
              read.environment.empty() ? "" : ", with environments." + read.environment);
  }
  for (const std::string& warning : read.warnings) log::warn("{}", warning);
  Settings& settings = read.settings;
  if (!settings.engine.cache_dir.empty()) setenv("MLXS_CACHE_DIR", settings.engine.cache_dir.c_str(), 1);
  if (!flags.models.empty()) settings.models = flags.models;
  return read;
}

void reload(Server& server, const Settings& settings) {
  if (settings.server.tls_certificate_file.empty() && settings.api_keys_file.empty()) {
    log::info("SIGHUP: neither API keys nor a certificate come from a file: nothing to read again");
    return;
  }
  try {
    server.reload_tls();
    if (!settings.server.tls_certificate_file.empty()) log::info("the TLS certificate was read again");
  } catch (const Error& error) {
    log::error("the TLS certificate stays as it was: {}", error.full());
  }
  if (settings.api_keys_file.empty()) return;
  try {
    server.replace_keys(read_api_keys(settings));
    log::info("the API keys were read again");
  } catch (const Error& error) {
    log::error("the API keys stay as they were: {}", error.full());
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
  const config::Config config = read_config(flags);
  const Settings& settings = config.settings;
  ServerOptions server_options = cli::server_options(settings);
  std::optional<RedisUrl> registry;
  if (!settings.registry.empty()) registry = RedisUrl::parse(settings.registry);
  if (registry && !server_options.listen_tcp) {
    throw Error(ErrorCode::kInvalidArgument,
                "other machines cannot reach a Unix socket, so it is not registered",
                "give --host or --port as well", "registry");
  }
  raise_open_files();

  const bool reloads = !server_options.tls_certificate_file.empty() || !settings.api_keys_file.empty();
  TerminationSignals signals(reloads);  // before the first thread
  const Telemetry telemetry(config);
  signals.on_user(SIGUSR1, [&telemetry] { telemetry.dump_flight("asked"); });
  signals.on_user(SIGUSR2, toggle_debug);
  EngineOptions options = settings.engine;
  options.max_loaded_models = std::max(options.max_loaded_models, static_cast<int>(settings.models.size()));
  options.observer = telemetry.observer();
  const auto engine = Engine::create(options);
  const TelemetryThreads telling(telemetry, *engine);

  // The port first: one that is taken fails before a model is loaded, and probes see "not ready" instead of
  // nothing.
  telling.apply(server_options);
  if (telemetry.recorder()) {
    server_options.flight = [recorder = telemetry.recorder()] { return recorder->snapshot("asked"); };
  }
  Server server(server_options, *engine, telling.metrics());
  server.start();
  const std::string url = server_url(server_options, server.port());

  for (const std::string& model : settings.models) fetch_if_absent(model);
  for (auto model = settings.models.begin(); model != settings.models.end(); ++model) {
    const ModelInfo info = engine->load_model(
        {.model = *model,
         .served_name = model == settings.models.begin() ? settings.served_name : std::string(),
         .context_length = settings.context_length,
         .force = settings.force_load,
         .next = {model + 1, settings.models.end()}});
    engine->warmup_model(info.id);
    log::info("{}: {} {}, context {}, loaded in {:.2f} s", info.id, info.architecture, info.quantization,
              info.context_limit, info.load_seconds);
  }
  const std::vector<ModelInfo> models = engine->list_models();
  std::optional<Heartbeat> heartbeat;
  if (registry) heartbeat.emplace(*registry, describe_instance(url, models));

  signals.on_hangup([&server, &settings] { reload(server, settings); });
  signals.start_draining_on_signal();
  print_ready(server_options, server.port(), models);
  signals.wait();

  const double drain_timeout_s = settings.drain_timeout_ms / 1e3;
  log::info("draining: running requests may take {:g} s more; a second signal ends them at once",
            drain_timeout_s);
  if (heartbeat) heartbeat->stop();
  signals.on_hangup(nullptr);  // the server goes before the signals do
  signals.on_user(SIGUSR1, nullptr);
  server.drain(drain_timeout_s);
  server.stop();
  return 0;
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve models over HTTP (OpenAI API)");
  command->add_option("MODEL,--model", flags->models,
                      std::string(kModelHelp) +
                          "; mock:tokens=512,delay=0 streams words without a model; one or more (default: "
                          "those of the configuration)");
  add_config_flags(*command, flags->config);
  command->footer(
      "Prints one line on stdout when the first token can be served.\n"
      "SIGTERM or Ctrl-C drains: no new requests, running ones finish (status 0); a second one ends at once "
      "(status 1).\n"
      "SIGHUP reads API keys and the certificate again; without them it drains a server whose stdin is a "
      "terminal,\n"
      "and others ignore it.\n"
      "SIGUSR1 writes the last steps into a file for `trace`; SIGUSR2 turns the log's level debug on and "
      "off.\n"
      "Flags are keys of the configuration file too, and variables: mlx-serving config --explain.\n\n"
      "Examples:\n"
      "  mlx-serving serve smollm2\n"
      "  mlx-serving serve ./a.gguf ./b.gguf --port 9000 --kv-cache-bytes 2GiB\n"
      "  mlx-serving serve ./new/a.gguf ./old/a.gguf --served-model-name a-new\n"
      "  mlx-serving serve smollm2 --registry redis://127.0.0.1:6379");
  command->callback([flags, &action] { action = [flags] { return serve(*flags); }; });
}

}  // namespace mlxs::cli
