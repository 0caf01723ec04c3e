#include "models/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "mlxs/error.h"
#include "models/config_reader.h"

namespace mlxs {
namespace {

class ScalingReader {
 public:
  ScalingReader(const ModelFile& file, const ModelConfig& config, std::vector<double>& frequencies)
      : file_(file), c_(config), f_(frequencies), prefix_(config.architecture + ".rope.scaling.") {}

  // f / factor for all.
  void linear() {
    const double factor = value("factor");
    for (double& f : f_) f /= factor;
  }

  // Llama 3: long waves are stretched by factor, short ones kept, those between blended (Llama 3.1).
  void llama3() {
    const double factor = value("factor"), low = value("low_freq_factor", 1.0),
                 high = value("high_freq_factor", 4.0), old = value("original_context_length", 8192.0);
    require(file_, high > low, fmt::format("{}high_freq_factor is not above low_freq_factor", prefix_));
    for (double& f : f_) {
      const double turns = old * f / (2 * std::numbers::pi);  // over the old context
      const double keep = std::clamp((turns - low) / (high - low), 0.0, 1.0);
      f = f * keep + f / factor * (1 - keep);
    }
  }

  // YaRN (Peng et al. 2023): interpolates waves that turn less than beta_slow times over the old context.
  float yarn() {
    const double factor = value("factor"), old = value("original_context_length", c_.context);
    const double dims = c_.rope_dims, base = static_cast<double>(c_.rope_base);
    const auto dim_of = [&](double turns) {
      return dims * std::log(old / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
    };
    double low = dim_of(value("yarn_beta_fast", 32.0)), high = dim_of(value("yarn_beta_slow", 1.0));
    if (file_.get_bool(prefix_ + "yarn_truncate", true)) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dims - 1);
    if (low == high) high += 0.001;
    for (std::size_t i = 0; i < f_.size(); ++i) {
      const double blend = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f_[i] = f_[i] * (1 - blend) + f_[i] / factor * blend;
    }
    if (file_.has(prefix_ + "attn_factor")) return static_cast<float>(value("attn_factor"));
    const auto magnitude = [&](double scale) {
      return factor > 1 ? 0.1 * scale * std::log(factor) + 1.0 : 1.0;
    };
    const YarnMagnitudes magnitudes = yarn_magnitudes(file_, c_);
    return static_cast<float>(magnitude(magnitudes.rotated) / magnitude(magnitudes.all));
  }

  // LongRoPE (Ding et al. 2024): a factor a frequency. A cache holds keys of one rotation, so a model trained
  // beyond its old context always takes the long factors, as mlx-lm does.
  float longrope(WeightLoader& load) {
    const auto half = static_cast<std::int64_t>(f_.size());
    const double old = value("original_context_length", c_.context);
    const bool long_context = c_.context > old;
    std::vector<float> long_factors = load.optional_floats("rope_factors_long.weight", half);
    std::vector<float> short_factors = load.optional_floats("rope_factors_short.weight", half);
    if (long_factors.empty()) long_factors = listed("long_factors");
    if (short_factors.empty()) short_factors = listed("short_factors");
    const std::vector<float>& factors = long_context ? long_factors : short_factors;
    require(file_, factors.size() == f_.size(),
            fmt::format("{}: {} factors for {} frequencies", prefix_, factors.size(), f_.size()));
    for (std::size_t i = 0; i < f_.size(); ++i) {
      require(file_, factors[i] > 0.0f, fmt::format("{}: a factor is not positive", prefix_));
      f_[i] /= static_cast<double>(factors[i]);
    }
    if (file_.has(prefix_ + "attn_factor")) return static_cast<float>(value("attn_factor"));
    return long_context ? static_cast<float>(std::sqrt(1 + std::log(c_.context / old) / std::log(old)))
                        : 1.0f;
  }

 private:
  double value(std::string_view key, std::optional<double> fallback = {}) const {
    return static_cast<double>(positive(file_, prefix_ + std::string(key), fallback));
  }
  std::vector<float> listed(std::string_view key) const {
    std::vector<float> values;
    const auto entry = file_.metadata().find(prefix_ + std::string(key));
    if (entry == file_.metadata().end()) return values;
    if (const auto* floats = std::get_if<std::vector<double>>(&entry->second))
      for (const double v : *floats) values.push_back(static_cast<float>(v));
    if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&entry->second))
      for (const std::int64_t v : *ints) values.push_back(static_cast<float>(v));
    return values;
  }

  const ModelFile& file_;
  const ModelConfig& c_;
  std::vector<double>& f_;
  std::string prefix_;
};

// θ_i = base^(-2i/d).
std::vector<double> frequencies_of(std::int32_t dims, double base) {
  std::vector<double> result(static_cast<std::size_t>(dims) / 2);
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = std::pow(base, -2.0 * static_cast<double>(i) / dims);
  return result;
}

}  // namespace

YarnMagnitudes yarn_magnitudes(const ModelFile& file, const ModelConfig& config) {
  const std::string prefix = config.architecture + ".rope.scaling.yarn_";
  // GGUF has one number for both, a tenth of theirs.
  if (const std::string both = prefix + "log_multiplier"; file.has(both)) {
    const double value = 10.0 * file.get_float(both);
    return {value, value};
  }
  return {file.get_float(prefix + "mscale", 1.0), file.get_float(prefix + "mscale_all_dim", 0.0)};
}

Rope read_rope(const ModelFile& file, const ModelConfig& config, WeightLoader& load, bool interleaved) {
  std::vector<double> frequencies = frequencies_of(config.rope_dims, static_cast<double>(config.rope_base));
  Rope rope{.interleaved = file.get_bool(config.architecture + ".rope.interleaved", interleaved)};
  const std::string key = config.architecture + ".rope.scaling.type";
  std::string_view type = file.get_string(key, "none");
  // GGUF files of Phi 3 carry the tables and no type.
  if (type == "none" && load.has("rope_factors_long.weight")) type = "longrope";
  ScalingReader scaling(file, config, frequencies);
  if (type == "linear") {
    scaling.linear();
  } else if (type == "llama3") {
    scaling.llama3();
  } else if (type == "yarn") {
    rope.magnitude = scaling.yarn();
  } else if (type == "longrope") {
    rope.magnitude = scaling.longrope(load);
  } else {
    // Dynamic NTK changes the base beyond the trained context only, where no request gets.
    require(
        file, type == "none" || type == "dynamic",
        fmt::format("{} = '{}' is not supported (none, linear, dynamic, llama3, yarn, longrope)", key, type));
  }
  const std::vector<float> factors = load.optional_floats("rope_freqs.weight", config.rope_dims / 2);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double factor = factors.empty() ? 1.0 : static_cast<double>(factors[i]);
    rope.inverse_frequencies.push_back(static_cast<float>(frequencies[i] / factor));
  }
  return rope;
}

Rope plain_rope(const ModelConfig& config, float base, bool interleaved) {
  Rope rope{.interleaved = interleaved};
  for (const double f : frequencies_of(config.rope_dims, static_cast<double>(base)))
    rope.inverse_frequencies.push_back(static_cast<float>(f));
  return rope;
}

}  // namespace mlxs
