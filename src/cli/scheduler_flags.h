// How a server schedules: flags, and the environment variables of the GPU scheduler whose names are kept
// (presets, window, batch size, auto-tune). A variable outside its range is clamped and warned of; a flag is
// refused.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mlxs/engine.h"

namespace mlxs::cli {

struct SchedulerFlags {
  double target_itl_ms = 0;
  bool arrival_order = false;
  std::vector<std::string> tenant_weights;  // NAME=WEIGHT
  std::string preset;                       // of the admission window; empty: as the environment says
};
void add_scheduler_flags(CLI::App& command, SchedulerFlags& flags);
// Reads the environment too; warnings go to the log.
void apply(const SchedulerFlags& flags, EngineOptions& options);

// "latency_sensitive", "balanced", "throughput_optimized": a window that is on.
AdmissionWindowOptions window_preset(std::string_view name);

using Environment = std::function<std::optional<std::string>(const char* name)>;
// `base` with what the MLX_* variables say on top.
AdmissionWindowOptions window_of_environment(AdmissionWindowOptions base, const Environment& environment,
                                             std::vector<std::string>& warnings);

}  // namespace mlxs::cli
