// Flags of how to answer, shared by run and chat; ranges as in GenerateParams.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mlxs/engine.h"

namespace mlxs::cli {

struct SamplingFlags {
  std::optional<int> max_tokens;
  float temperature = GenerateParams{}.temperature;
  float top_p = GenerateParams{}.top_p;
  int top_k = GenerateParams{}.top_k;
  float min_p = GenerateParams{}.min_p;
  float repetition_penalty = GenerateParams{}.repetition_penalty;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  std::string system;
};
void add_sampling_flags(CLI::App& command, SamplingFlags& flags);
// Everything but the prompt.
GenerateParams generate_params(const SamplingFlags& flags, const std::string& model_id);
// One line: tokens, time to the first, rate.
std::string describe_stats(const GenerationStats& stats, FinishReason finish);

}  // namespace mlxs::cli
