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
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  std::string system;
};
void add_sampling_flags(CLI::App& command, SamplingFlags& flags);
// Everything but the prompt. What no flag says is as the model's makers advise, else GenerateParams' own
// default.
GenerateParams generate_params(const SamplingFlags& flags, const ModelInfo& model);
// One line: tokens, time to the first, rate.
std::string describe_stats(const GenerationStats& stats, FinishReason finish);

}  // namespace mlxs::cli
