#include "config/check.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "formats/catalog.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

void change(Config& config, std::string_view path, Value value, const std::string& why) {
  for (Effective& effective : config.effective) {
    if (effective.key->path != path) continue;
    effective.key->set(config.settings, value);
    effective.value = std::move(value);
    if (effective.where.empty()) effective.where = why;
    return;
  }
}

bool given(const Config& config, std::string_view path) {
  return config.of(path).from != Effective::From::kDefault;
}

void check_auto_tune(Config& config) {
  const auto& tuning = config.settings.engine.admission_window.auto_tune;
  if (tuning.min_batch <= tuning.max_batch) return;
  config.warnings.push_back(
      fmt::format("gpu_scheduler.auto_tune.min_batch = {} exceeds max_batch = {}: both are {}",
                  tuning.min_batch, tuning.max_batch, tuning.max_batch));
  change(config, "gpu_scheduler.auto_tune.min_batch", std::int64_t{tuning.max_batch}, "max_batch");
}

void check_window(Config& config) {
  const auto& window = config.settings.engine.admission_window;
  const auto& adaptive = window.adaptive;
  if (adaptive.low_threshold > adaptive.medium_threshold) {
    config.warnings.push_back(
        fmt::format("gpu_scheduler.adaptive_window.low_load_threshold = {:g} exceeds medium_load_threshold = "
                    "{:g}: both are {:g}",
                    adaptive.low_threshold, adaptive.medium_threshold, adaptive.medium_threshold));
    change(config, "gpu_scheduler.adaptive_window.low_load_threshold", adaptive.medium_threshold,
           "medium_load_threshold");
  }
  if (adaptive.medium_threshold > adaptive.high_threshold) {
    config.warnings.push_back(fmt::format(
        "gpu_scheduler.adaptive_window.high_load_threshold = {:g} is below medium_load_threshold = "
        "{:g}: both are {:g}",
        adaptive.high_threshold, adaptive.medium_threshold, adaptive.medium_threshold));
    change(config, "gpu_scheduler.adaptive_window.high_load_threshold", adaptive.medium_threshold,
           "medium_load_threshold");
  }
  if (!window.enabled && !config.settings.preset.empty()) {
    config.warnings.push_back(
        fmt::format("gpu_scheduler.preset is {}, but {} turns the window off: nothing is held back",
                    config.settings.preset, config.of("gpu_scheduler.enabled").where));
  }
}

// A folder turns the disk tier on unless `enabled` says no; `enabled` alone has a folder of its own.
void check_persistence(Config& config) {
  Settings& settings = config.settings;
  std::string& folder = settings.engine.prefix_cache_dir;
  const bool said = given(config, "prompt_cache.persistence.enabled");
  if (!said && !folder.empty()) {
    change(config, "prompt_cache.persistence.enabled", true, "prompt_cache.persistence.path is given");
  } else if (settings.persistence && folder.empty()) {
    const std::filesystem::path cache = settings.engine.cache_dir.empty()
                                            ? cache_directory()
                                            : std::filesystem::path(settings.engine.cache_dir);
    change(config, "prompt_cache.persistence.path", (cache / "prompts").string(), "in the cache");
  }
  if (settings.persistence && !settings.engine.prefix_cache) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format(
            "prompt_cache.persistence is on ({}), but prompt_cache.enabled is off ({})",
            config.of(said ? "prompt_cache.persistence.enabled" : "prompt_cache.persistence.path").where,
            config.of("prompt_cache.enabled").where),
        "turn one of them", "prompt_cache.persistence.enabled");
  }
  if (!settings.persistence) folder.clear();
}

// A flag asks for the thing itself, so for the master switch too, unless that is said elsewhere.
void check_metal(Config& config) {
  const bool flag = config.of("metal_optimizations.memory_pool.enabled").from == Effective::From::kFlag ||
                    config.of("metal_optimizations.blit_queue.enabled").from == Effective::From::kFlag;
  if (flag && !given(config, "metal_optimizations.enabled")) {
    change(config, "metal_optimizations.enabled", true, "by --memory-pool or --blit-queue");
  }
  const auto& metal = config.settings.engine.metal_optimizations;
  if (!metal.enabled &&
      (metal.memory_pool.enabled || metal.blit_queue.enabled || metal.command_buffer_ring.enabled)) {
    config.warnings.emplace_back(
        "metal_optimizations.enabled is off, so its memory_pool, blit_queue and command_buffer_ring are too");
  }
  if (metal.memory_pool.heap_size_mb > metal.memory_pool.max_heap_size_mb) {
    const int most = metal.memory_pool.max_heap_size_mb;
    config.warnings.push_back(fmt::format(
        "metal_optimizations.memory_pool.heap_size_mb exceeds max_heap_size_mb: both are {}", most));
    change(config, "metal_optimizations.memory_pool.heap_size_mb", std::int64_t{most}, "max_heap_size_mb");
  }
  if (metal.memory_pool.num_heaps < metal.memory_pool.min_heaps) {
    const int least = metal.memory_pool.min_heaps;
    config.warnings.push_back(
        fmt::format("metal_optimizations.memory_pool.num_heaps is below min_heaps: both are {}", least));
    change(config, "metal_optimizations.memory_pool.num_heaps", std::int64_t{least}, "min_heaps");
  }
}

void check_tls(const Config& config) {
  const ServerOptions& server = config.settings.server;
  if (server.tls_certificate_file.empty() == server.tls_key_file.empty()) return;
  const bool certificate = !server.tls_certificate_file.empty();
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("server.tls.{} is given ({}), but server.tls.{} is not",
                          certificate ? "cert_file" : "key_file",
                          config.of(certificate ? "server.tls.cert_file" : "server.tls.key_file").where,
                          certificate ? "key_file" : "cert_file"),
              certificate ? "give --tls-key too" : "give --tls-cert too");
}

// What the texts mean; and a Unix socket takes the port's place, unless host or port is given as well.
void check_listening(Config& config) {
  const Settings& settings = config.settings;
  ServerOptions& server = config.settings.server;
  const std::string& text = settings.unix_socket_mode;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), server.unix_socket_mode, 8);
  if (error != std::errc() || end != text.data() + text.size() || server.unix_socket_mode < 0 ||
      server.unix_socket_mode > 0777) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: server.unix_socket_mode = '{}' is no mode",
                            config.of("server.unix_socket_mode").where, text),
                "give permission bits as chmod has them, such as 600 or 660", "unix_socket_mode");
  }
  server.listen_tcp =
      server.unix_socket.empty() || given(config, "server.host") || given(config, "server.port");
  server.sampling_defaults =
      settings.sampling_defaults == "model" ? SamplingDefaults::kModel : SamplingDefaults::kDialect;
  server.slow_reader = settings.slow_reader == "cancel" ? SlowReader::kCancel : SlowReader::kPause;
}

}  // namespace

void check_together(Config& config) {
  check_auto_tune(config);
  check_window(config);
  check_persistence(config);
  check_metal(config);
  check_tls(config);
  check_listening(config);
}

}  // namespace mlxs::config
