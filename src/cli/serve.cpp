// `serve MODEL…`: engine, metrics, HTTP server and registry put together; ends by draining.
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
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/log_control.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/scheduler_flags.h"
#include "cli/server_flags.h"
#include "cli/signals.h"
#include "cli/telemetry_flags.h"
#include "fleet/heartbeat.h"
#include "serve/server.h"

namespace mlxs::cli {
namespace {

struct ServeFlags {
  std::vector<std::string> models;
  ServerFlags server;
  int max_running = EngineOptions{}.max_running;
  double drain_timeout_s = 30;
  std::string prefix_cache_dir;
  std::uint64_t prefix_cache_bytes = EngineOptions{}.prefix_cache_disk_bytes;
  std::string registry;
  EngineFlags engine;
  SchedulerFlags scheduler;
  TelemetryFlags telemetry;
};

void print_ready(const std::string& url, const std::vector<ModelInfo>& models) {
  constexpr std::string_view kUnix = "unix:";
  const std::string target = url.starts_with(kUnix)
                                 ? fmt::format("--unix-socket {} http://localhost", url.substr(kUnix.size()))
                                 : url;
  const auto found = std::ranges::find(models, false, &ModelInfo::is_encoder);
  if (found == models.end()) {
    fmt::print(
        "ready: {0} on {1}  try: curl {4}/v1/{2} -H 'Content-Type: application/json' -d "
        "'{{\"model\":\"{0}\",{3}}}'\n",
        models.front().id, url, models.front().scores ? "score" : "embeddings",
        models.front().scores ? R"("text_1":"Hello!","text_2":"Hi!")" : R"("input":"Hello!")", target);
    std::fflush(stdout);
    return;
  }
  const std::string& model = found->id;
  fmt::print(
      "ready: {0} on {2}  try: curl {1}/v1/chat/completions -H 'Content-Type: application/json' "
      "-d "
      "'{{\"model\":\"{0}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}],\"max_tokens\":64}}'"
      "\n",
      model, target, url);
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

void reload(Server& server, const ServerFlags& flags) {
  try {
    server.reload_tls();
    if (!flags.options.tls_certificate_file.empty()) log::info("the TLS certificate was read again");
  } catch (const Error& error) {
    log::error("the TLS certificate stays as it was: {}", error.full());
  }
  if (flags.api_keys.empty()) return;
  try {
    server.replace_keys(read_api_keys(flags));
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
  ServerOptions server_options = cli::server_options(flags.server);
  std::optional<RedisUrl> registry;
  if (!flags.registry.empty()) registry = RedisUrl::parse(flags.registry);
  if (registry && !server_options.listen_tcp) {
    throw Error(ErrorCode::kInvalidArgument,
                "other machines cannot reach a Unix socket, so it is not registered",
                "give --host or --port as well", "registry");
  }
  raise_open_files();

  const bool reloads = !server_options.tls_certificate_file.empty() || !flags.server.api_keys.empty();
  TerminationSignals signals(reloads);  // before the first thread
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
  telling.apply(server_options);
  if (telemetry.recorder()) {
    server_options.flight = [recorder = telemetry.recorder()] { return recorder->snapshot("asked"); };
  }
  Server server(server_options, *engine, telling.metrics(options.metal_optimizations.expose_metrics));
  server.start();
  const std::string url = server_url(server_options, server.port());

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

  signals.on_hangup([&server, &flags] { reload(server, flags.server); });
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
  command
      ->add_option(
          "MODEL,--model", flags->models,
          std::string(kModelHelp) + "; mock:tokens=512,delay=0 streams words without a model; one or more")
      ->required();
  add_server_flags(*command, flags->server);
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
