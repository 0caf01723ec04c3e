// Everything that the configuration decides, as the structs of the modules that act on it. A default here is
// the default of the key that sets it.
#pragma once

#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/server.h"

namespace mlxs::config {

// What `gpu_scheduler.preset: NAME` stands for; each value yields to a key that names it.
struct WindowPreset {
  double window_ms = 1.0;
  int batch_size = 4;
  bool adaptive = true, fast_path = true, auto_tune = false;
  int auto_tune_max_batch = 8;
};

// What a server tells of itself; the OTEL_* variables that no key stands for are read beside it.
struct TelemetrySettings {
  std::string log_level = "info", log_format = "pretty";
  bool access_log = true, log_prompts = false;
  bool metrics = true;
  std::string otlp_endpoint;              // empty: nothing is sent
  std::vector<std::string> otlp_headers;  // NAME=VALUE
  std::string otlp_compression = "none";
  std::string service_name = "mlx-serving";
  double trace_sample = 0.1;
  int export_interval_ms = 60'000;  // of metrics
  int flight_steps = 10'000;        // 0: no flight recorder
  std::string flight_dir;           // empty: "flight" in the cache directory
  int stall_timeout_ms = 30'000;    // 0: no step ever takes too long
};

struct Settings {
  EngineOptions engine;
  ServerOptions server;

  std::vector<std::string> models;  // loaded at the start where the command line names none
  std::string served_name;          // of the first of them; empty: its own
  int context_length = 0;           // of every model; 0: its own
  bool force_load = false;

  std::string preset;  // of the admission window; empty: none
  WindowPreset latency_sensitive{.window_ms = 0.75, .batch_size = 2, .adaptive = false};
  WindowPreset balanced{.auto_tune = true};
  WindowPreset throughput_optimized{
      .window_ms = 2, .batch_size = 8, .auto_tune = true, .auto_tune_max_batch = 16};

  bool persistence = false;                   // of the prefix cache; the folder is engine.prefix_cache_dir
  std::string api_keys_file;                  // lines "SHA256-HEX TENANT [user|admin] [rpm=N] [tpm=N]"
  std::string api_key;                        // one more, an admin's
  bool insecure = false;                      // others may reach the server, and nobody is asked for a key
  std::string unix_socket_mode = "600";       // octal: of server.unix_socket_mode
  std::string slow_reader = "pause";          // of server.slow_reader
  std::string sampling_defaults = "dialect";  // of server.sampling_defaults
  int drain_timeout_ms = 30'000;
  std::string registry;  // redis://…
  TelemetrySettings telemetry;
};

}  // namespace mlxs::config
