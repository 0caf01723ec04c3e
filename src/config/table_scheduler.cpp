// The keys of the scheduler: fairness, targets, and the admission window with the names of the GPU scheduler.
#include "config/table.h"

namespace mlxs::config {
namespace {

template <class Access>
void add_preset(std::vector<Key>& rows, const std::string& name, Access preset) {
  const std::string path = "gpu_scheduler.presets." + name + ".";
  const auto add = [&](const char* key, const char* field, auto access) {
    rows.push_back(bound(path + key, name + "." + field,
                         [preset, access](auto& s) -> auto& { return access(preset(s)); }));
    return &rows.back();
  };
  const auto says = [&name](Key* key, double low, double high, const char* what) {
    if (key->type != Type::kBool) key->low = low, key->high = high;
    key->meaning = std::string(what) + " of the preset " + name;
  };
  says(add("batch_window_ms", "window_ms", [](auto& p) -> auto& { return p.window_ms; }), 0.75, 5, "Window");
  rows.back().unit = "ms";
  says(add("max_batch_size", "batch_size", [](auto& p) -> auto& { return p.batch_size; }), 1, 16,
       "Batch size");
  says(add("adaptive_window", "adaptive", [](auto& p) -> auto& { return p.adaptive; }), 0, 0,
       "Adaptive window");
  says(add("fast_path", "fast_path", [](auto& p) -> auto& { return p.fast_path; }), 0, 0, "Fast path");
  says(add("auto_tune", "auto_tune", [](auto& p) -> auto& { return p.auto_tune; }), 0, 0, "Auto-tuning");
  says(add("auto_tune_max_batch", "auto_tune_max_batch",
           [](auto& p) -> auto& { return p.auto_tune_max_batch; }),
       4, 16, "Largest auto-tuned batch");
}

std::vector<Key> window_keys() {
  return {
      MLXS_KEY("gpu_scheduler.enabled", engine.admission_window.enabled)
          .env("MLX_GPU_SCHEDULER")
          .says("Hold requests back a moment for others to join; a request that comes later joins the next "
                "step anyway"),
      MLXS_KEY("gpu_scheduler.preset", preset)
          .one_of({"", "latency_sensitive", "balanced", "throughput_optimized"})
          .flag("--scheduler-preset")
          .says("Hold requests back for others to join, with the values of gpu_scheduler.presets.NAME"),
      MLXS_KEY("gpu_scheduler.batch_window_ms", engine.admission_window.window_ms)
          .range(0.75, 5)
          .in("ms")
          .env("MLX_GPU_SCHEDULER_WINDOW_MS")
          .says("How long a request is held at most, where the adaptive window is off"),
      MLXS_KEY("gpu_scheduler.max_batch_size", engine.admission_window.batch_size)
          .range(1, 16)
          .env("MLX_GPU_SCHEDULER_BATCH_SIZE")
          .says("So many waiting requests need not wait for more"),
      MLXS_KEY("gpu_scheduler.p99_threshold_ms", engine.admission_window.p99_threshold_ms)
          .range(50, 500)
          .in("ms")
          .env("MLX_GPU_SCHEDULER_P99_THRESHOLD_MS")
          .says("When steps take longer, batch size and then window shrink, until they are fast again"),
      MLXS_KEY("gpu_scheduler.fast_path.enabled", engine.admission_window.fast_path)
          .env("MLX_FAST_PATH")
          .says("A request that is alone starts at once"),
      MLXS_KEY("gpu_scheduler.adaptive_window.enabled", engine.admission_window.adaptive.enabled)
          .env("MLX_ADAPTIVE_WINDOW")
          .says("The window follows the smoothed number of waiting requests"),
      MLXS_KEY("gpu_scheduler.adaptive_window.low_load_threshold",
               engine.admission_window.adaptive.low_threshold)
          .range(0, 1000)
          .env("MLX_ADAPTIVE_WINDOW_LOW_THRESHOLD")
          .says("Up to so many waiting: low load"),
      MLXS_KEY("gpu_scheduler.adaptive_window.medium_load_threshold",
               engine.admission_window.adaptive.medium_threshold)
          .range(0, 1000)
          .env("MLX_ADAPTIVE_WINDOW_MEDIUM_THRESHOLD")
          .says("Up to so many waiting: medium load"),
      MLXS_KEY("gpu_scheduler.adaptive_window.high_load_threshold",
               engine.admission_window.adaptive.high_threshold)
          .range(0, 1000)
          .env("MLX_ADAPTIVE_WINDOW_HIGH_THRESHOLD")
          .says("From so many waiting: high load; between medium and high the window stays as it is"),
      MLXS_KEY("gpu_scheduler.adaptive_window.low_load_window_ms", engine.admission_window.adaptive.low_ms)
          .range(0.5, 2)
          .in("ms")
          .env("MLX_ADAPTIVE_WINDOW_LOW_MS")
          .says("Window at low load"),
      MLXS_KEY("gpu_scheduler.adaptive_window.medium_load_window_ms",
               engine.admission_window.adaptive.medium_ms)
          .range(0.75, 3)
          .in("ms")
          .env("MLX_ADAPTIVE_WINDOW_MEDIUM_MS")
          .says("Window at medium load"),
      MLXS_KEY("gpu_scheduler.adaptive_window.high_load_window_ms", engine.admission_window.adaptive.high_ms)
          .range(1, 5)
          .in("ms")
          .env("MLX_ADAPTIVE_WINDOW_HIGH_MS")
          .says("Window at high load"),
      MLXS_KEY("gpu_scheduler.adaptive_window.hysteresis_count", engine.admission_window.adaptive.hysteresis)
          .range(1, 10)
          .env("MLX_ADAPTIVE_WINDOW_HYSTERESIS")
          .says("Samples in a row that must agree before the window changes"),
      MLXS_KEY("gpu_scheduler.adaptive_window.ema_alpha", engine.admission_window.adaptive.ema_alpha)
          .range(0.1, 0.9)
          .env("MLX_ADAPTIVE_WINDOW_EMA_ALPHA")
          .says("Weight of the newest sample in the smoothed number"),
      MLXS_KEY("gpu_scheduler.auto_tune.enabled", engine.admission_window.auto_tune.enabled)
          .env("MLX_AUTO_TUNE")
          .says("The batch size follows the measured steps' P99 up and down"),
      MLXS_KEY("gpu_scheduler.auto_tune.min_batch", engine.admission_window.auto_tune.min_batch)
          .range(1, 8)
          .env("MLX_AUTO_TUNE_MIN_BATCH")
          .says("Least batch size that it sets"),
      MLXS_KEY("gpu_scheduler.auto_tune.max_batch", engine.admission_window.auto_tune.max_batch)
          .range(4, 16)
          .env("MLX_AUTO_TUNE_MAX_BATCH")
          .says("Largest batch size that it sets"),
      MLXS_KEY("gpu_scheduler.auto_tune.ema_alpha", engine.admission_window.auto_tune.ema_alpha)
          .range(0.1, 0.9)
          .env("MLX_AUTO_TUNE_EMA_ALPHA")
          .says("Weight of the newest P99 in the smoothed one"),
      MLXS_KEY("gpu_scheduler.auto_tune.interval", engine.admission_window.auto_tune.interval)
          .range(5, 20)
          .in("steps")
          .env("MLX_AUTO_TUNE_INTERVAL")
          .says("Between two adjustments"),
  };
}

}  // namespace

std::vector<Key> scheduler_keys() {
  std::vector<Key> rows{
      MLXS_KEY("scheduling.priority_scheduler.max_queue_depth", engine.max_queue_depth)
          .range(1, 1 << 20)
          .also("advanced_optimizations.priority_scheduling.max_queue_size")
          .says("Requests that wait, per model; beyond, 429 with Retry-After"),
      MLXS_KEY("scheduling.priority_scheduler.aging_interval_ms", engine.aging_interval_ms)
          .range(100, 3'600'000)
          .in("ms")
          .also("scheduling.priority_scheduler.aging_interval")
          .says("A waiting request moves up a priority tier each"),
      MLXS_KEY("scheduling.target_itl_ms", engine.target_itl_ms)
          .range(0, 60e3)
          .in("ms")
          .flag("--target-itl-ms")
          .says("Keep steps this short while answers run, by taking long prompts in smaller pieces; 0: off"),
      MLXS_KEY("scheduling.fair_share", engine.fair_share)
          .off_flag("--arrival-order")
          .says("Serve waiting requests by each tenant's share instead of in order of arrival"),
      MLXS_KEY("scheduling.tenant_weights", engine.tenant_weights)
          .range(1e-3, 1e3)
          .flag("--tenant-weight")
          .says("A tenant's share of the machine relative to others' 1, as NAME=WEIGHT; may be repeated"),
      MLXS_KEY("scheduling.fair_prompt_weight", engine.fair_prompt_weight)
          .range(1e-3, 1e3)
          .says("What a computed prompt token counts in a tenant's share"),
      MLXS_KEY("scheduling.fair_output_weight", engine.fair_output_weight)
          .range(1e-3, 1e3)
          .says("What a generated token counts in it"),
  };
  for (Key& key : window_keys()) rows.push_back(std::move(key));
  add_preset(rows, "latency_sensitive", [](auto& s) -> auto& { return s.latency_sensitive; });
  add_preset(rows, "balanced", [](auto& s) -> auto& { return s.balanced; });
  add_preset(rows, "throughput_optimized", [](auto& s) -> auto& { return s.throughput_optimized; });
  return rows;
}

}  // namespace mlxs::config
