#include "cli/scheduler_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

constexpr const char* kPresets[] = {"latency_sensitive", "balanced", "throughput_optimized"};

std::optional<double> to_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

class Reader {
 public:
  Reader(const Environment& environment, std::vector<std::string>& warnings)
      : environment_(environment), warnings_(warnings) {}

  void flag(const char* name, bool& value) const {
    auto text = environment_(name);
    if (!text) return;
    std::ranges::transform(*text, text->begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    if (*text == "on" || *text == "1" || *text == "true") {
      value = true;
    } else if (*text == "off" || *text == "0" || *text == "false") {
      value = false;
    } else {
      warnings_.push_back(fmt::format("{}='{}' is neither on nor off and was ignored", name, *text));
    }
  }

  template <class Number>
  void number(const char* name, double low, double high, Number& value) const {
    const auto text = environment_(name);
    if (!text) return;
    const auto given = to_number(*text);
    if (!given) {
      warnings_.push_back(fmt::format("{}='{}' is no number and was ignored", name, *text));
      return;
    }
    const double clamped = std::clamp(*given, low, high);
    if (clamped != *given)
      warnings_.push_back(
          fmt::format("{}={} is outside {} … {}: {} is used", name, *text, low, high, clamped));
    value = static_cast<Number>(clamped);
  }

 private:
  const Environment& environment_;
  std::vector<std::string>& warnings_;
};

std::pair<std::string, double> parse_weight(const std::string& text) {
  const auto equals = text.rfind('=');
  const auto weight =
      equals == std::string::npos ? std::nullopt : to_number(std::string_view(text).substr(equals + 1));
  if (!weight || *weight < 1e-3 || *weight > 1e3) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("--tenant-weight '{}' is no NAME=WEIGHT", text),
                "for example --tenant-weight alice=2; weights are 0.001 … 1000");
  }
  return {text.substr(0, equals), *weight};
}

}  // namespace

AdmissionWindowOptions window_preset(std::string_view name) {
  AdmissionWindowOptions preset{.enabled = true};
  if (name == "latency_sensitive") {
    preset.window_ms = 0.75;
    preset.batch_size = 2;
    preset.adaptive.enabled = false;
  } else if (name == "balanced") {
    preset.auto_tune.enabled = true;
  } else if (name == "throughput_optimized") {
    preset.window_ms = 2;
    preset.batch_size = 8;
    preset.auto_tune.enabled = true;
    preset.auto_tune.max_batch = 16;
  } else {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("scheduler preset '{}' is none", name),
                fmt::format("use {}, {} or {}", kPresets[0], kPresets[1], kPresets[2]));
  }
  return preset;
}

AdmissionWindowOptions window_of_environment(AdmissionWindowOptions window, const Environment& environment,
                                             std::vector<std::string>& warnings) {
  const Reader read(environment, warnings);
  read.flag("MLX_GPU_SCHEDULER", window.enabled);
  read.number("MLX_GPU_SCHEDULER_BATCH_SIZE", 1, 16, window.batch_size);
  read.number("MLX_GPU_SCHEDULER_WINDOW_MS", 0.75, 5, window.window_ms);
  read.number("MLX_GPU_SCHEDULER_P99_THRESHOLD_MS", 50, 500, window.p99_threshold_ms);
  read.flag("MLX_FAST_PATH", window.fast_path);
  read.flag("MLX_ADAPTIVE_WINDOW", window.adaptive.enabled);
  read.number("MLX_ADAPTIVE_WINDOW_LOW_MS", 0.5, 2, window.adaptive.low_ms);
  read.number("MLX_ADAPTIVE_WINDOW_MEDIUM_MS", 0.75, 3, window.adaptive.medium_ms);
  read.number("MLX_ADAPTIVE_WINDOW_HIGH_MS", 1, 5, window.adaptive.high_ms);
  read.number("MLX_ADAPTIVE_WINDOW_LOW_THRESHOLD", 0, 1000, window.adaptive.low_threshold);
  read.number("MLX_ADAPTIVE_WINDOW_MEDIUM_THRESHOLD", 0, 1000, window.adaptive.medium_threshold);
  read.number("MLX_ADAPTIVE_WINDOW_HYSTERESIS", 1, 10, window.adaptive.hysteresis);
  read.number("MLX_ADAPTIVE_WINDOW_EMA_ALPHA", 0.1, 0.9, window.adaptive.ema_alpha);
  read.flag("MLX_AUTO_TUNE", window.auto_tune.enabled);
  read.number("MLX_AUTO_TUNE_MIN_BATCH", 1, 8, window.auto_tune.min_batch);
  read.number("MLX_AUTO_TUNE_MAX_BATCH", 4, 16, window.auto_tune.max_batch);
  read.number("MLX_AUTO_TUNE_EMA_ALPHA", 0.1, 0.9, window.auto_tune.ema_alpha);
  read.number("MLX_AUTO_TUNE_INTERVAL", 5, 20, window.auto_tune.interval);
  if (window.auto_tune.min_batch > window.auto_tune.max_batch) {
    warnings.push_back(
        fmt::format("MLX_AUTO_TUNE_MIN_BATCH={} exceeds MLX_AUTO_TUNE_MAX_BATCH={}: both are {}",
                    window.auto_tune.min_batch, window.auto_tune.max_batch, window.auto_tune.max_batch));
    window.auto_tune.min_batch = window.auto_tune.max_batch;
  }
  return window;
}

void add_scheduler_flags(CLI::App& command, SchedulerFlags& flags) {
  command
      .add_option(
          "--target-itl-ms", flags.target_itl_ms,
          "Keep steps this short while answers run, by taking long prompts in smaller pieces (default: off)")
      ->check(CLI::Range(0.0, 60e3, "0..60000"));
  command.add_option("--tenant-weight", flags.tenant_weights,
                     "NAME=WEIGHT: a tenant's share of the machine relative to others' 1; may be repeated");
  command.add_flag("--arrival-order", flags.arrival_order,
                   "Serve waiting requests in order of arrival instead of by each tenant's share");
  command
      .add_option("--scheduler-preset", flags.preset,
                  "Hold requests back for others to join: latency_sensitive, balanced, throughput_optimized "
                  "(default: "
                  "off, or as MLX_GPU_SCHEDULER says)")
      ->check(CLI::IsMember({kPresets[0], kPresets[1], kPresets[2]}));
}

void apply(const SchedulerFlags& flags, EngineOptions& options) {
  options.target_itl_ms = flags.target_itl_ms;
  options.fair_share = !flags.arrival_order;
  for (const std::string& text : flags.tenant_weights) options.tenant_weights.push_back(parse_weight(text));
  std::vector<std::string> warnings;
  const Environment environment = [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
  };
  options.admission_window = window_of_environment(
      flags.preset.empty() ? AdmissionWindowOptions{} : window_preset(flags.preset), environment, warnings);
  for (const std::string& warning : warnings) log::warn("{}", warning);
}

}  // namespace mlxs::cli
