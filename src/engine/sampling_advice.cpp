#include "engine/sampling_advice.h"

#include "base/log.h"

namespace mlxs {

SamplingAdvice sampling_advice(const ModelFile& file) {
  const auto advised = [&]<class T>(std::optional<T>& out, std::string_view key, double low, double high) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) return;
    const auto* real = std::get_if<double>(&found->second);
    const auto* whole = std::get_if<std::int64_t>(&found->second);
    const double value = real != nullptr ? *real : whole != nullptr ? static_cast<double>(*whole) : -1.0;
    if (value >= low && value <= high) {
      out = static_cast<T>(value);
    } else {
      log::warn("{}: {} is not {} … {} and is left out", file.path().string(), key, low, high);
    }
  };
  SamplingAdvice advice;
  advised(advice.temperature, "general.sampling.temp", 0, 2);
  advised(advice.top_p, "general.sampling.top_p", 1e-6, 1);
  advised(advice.top_k, "general.sampling.top_k", 0, 1 << 24);
  advised(advice.min_p, "general.sampling.min_p", 0, 0.999999);
  advised(advice.repetition_penalty, "general.sampling.penalty_repeat", 0.01, 100);
  return advice;
}

}  // namespace mlxs
