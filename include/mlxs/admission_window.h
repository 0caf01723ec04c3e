// How waiting requests are gathered before they start. Off by default: a request that comes later joins the
// next step in any case, so there is little to gather for. Needs only the standard library.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mlxs {

struct AdmissionWindowOptions {
  bool enabled = false;
  double window_ms = 1.0;  // 0.75 … 5: how long requests are held at most, unless `adaptive`
  int batch_size = 4;      // 1 … 16: so many need not wait for more
  bool fast_path = true;   // a request that is alone starts at once

  struct Adaptive {  // the window follows the smoothed number of waiting requests
    bool enabled = true;
    double low_ms = 0.75, medium_ms = 1.0, high_ms = 2.0;  // 0.5 … 2, 0.75 … 3, 1 … 5
    double low_threshold = 1, medium_threshold = 5;        // up to so many: low, medium
    double high_threshold = 6;  // from so many: high; between medium and high nothing changes
    int hysteresis = 3;         // 1 … 10 samples that agree
    double ema_alpha = 0.5;     // 0.1 … 0.9
  } adaptive;

  struct AutoTune {  // the batch size follows the measured steps' P99, instead of only shrinking when it is
                     // too high
    bool enabled = false;
    int min_batch = 2, max_batch = 8;  // 1 … 8, 4 … 16
    double ema_alpha = 0.3;            // 0.1 … 0.9
    int interval = 10;                 // 5 … 20 steps between adjustments
  } auto_tune;

  double p99_threshold_ms = 100;  // 50 … 500
};

struct WindowTransition {
  double seconds_ago = 0, window_ms = 0;
  std::string_view reason;  // "low load", "medium load", "high load"; empty: no more
};

struct AdmissionWindowStats {
  bool enabled = false, adaptive = false, fast_path_enabled = false, auto_tune = false;
  std::uint64_t fast_path = 0, normal = 0;  // batches that started
  std::uint64_t degradation_events = 0, adjustments = 0, updates = 0, transitions = 0;
  int batch_size = 0;
  double window_ms = 0, ema_queue_depth = 0, ema_p99_ms = 0;
  double p50_ms = 0, p95_ms = 0, p99_ms = 0;  // of the last steps, which are `samples`
  double min_ms = 0, max_ms = 0, mean_ms = 0;
  std::uint64_t samples = 0, steps = 0;
  std::uint64_t checks = 0;                               // of the batch size
  std::array<WindowTransition, 10> recent_transitions{};  // newest first
};

}  // namespace mlxs
