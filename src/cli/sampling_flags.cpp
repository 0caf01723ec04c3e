#include "cli/sampling_flags.h"

#include <fmt/format.h>

namespace mlxs::cli {

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  command.add_option("--max-tokens", flags.max_tokens, "Longest answer (default: up to the context's end)")
      ->check(CLI::Range(1, 1 << 24, ">= 1"));
  command.add_option("--temperature", flags.temperature, "0 is greedy, higher is more random")
      ->check(CLI::Range(0.0, 2.0, "0..2"))
      ->capture_default_str();
  command.add_option("--top-p", flags.top_p, "Sample from the smallest set of this much probability")
      ->check(CLI::Range(1e-6, 1.0, "0..1"))
      ->capture_default_str();
  command.add_option("--top-k", flags.top_k, "Sample from the k likeliest tokens; 0: all")
      ->check(CLI::Range(0, 1 << 24, ">= 0"))
      ->capture_default_str();
  command
      .add_option("--min-p", flags.min_p, "Drop tokens below this share of the likeliest one's probability")
      ->check(CLI::Range(0.0, 0.999999, "0..1"))
      ->capture_default_str();
  command.add_option("--repetition-penalty", flags.repetition_penalty, "Above 1 discourages repeats")
      ->check(CLI::Range(0.01, 100.0, "0.01..100"))
      ->capture_default_str();
  command.add_option("--seed", flags.seed, "The same seed gives the same answer");
  command.add_option("--stop", flags.stop, "Text that ends the answer; may be given up to 16 times")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--system", flags.system, "System message");
}

GenerateParams generate_params(const SamplingFlags& flags, const std::string& model_id) {
  GenerateParams params;
  params.model = model_id;
  params.max_tokens = flags.max_tokens;
  params.temperature = flags.temperature;
  params.top_p = flags.top_p;
  params.top_k = flags.top_k;
  params.min_p = flags.min_p;
  params.repetition_penalty = flags.repetition_penalty;
  params.seed = flags.seed;
  params.stop = flags.stop;
  return params;
}

std::string describe_stats(const GenerationStats& stats, FinishReason finish) {
  return fmt::format(
      "{} prompt tokens ({} cached), {} generated ({}), first after {:.0f} ms, {:.1f} tokens/s",
      stats.prompt_tokens, stats.cached_prompt_tokens, stats.generated_tokens, finish_reason_name(finish),
      stats.ttft_seconds * 1e3, stats.tokens_per_second);
}

}  // namespace mlxs::cli
