#include "cli/sampling_flags.h"

#include <fmt/format.h>

namespace mlxs::cli {

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  command.add_option("--max-tokens", flags.max_tokens, "Longest answer (default: up to the context's end)")
      ->check(CLI::Range(1, 1 << 24, ">= 1"));
  const auto add = [&](const char* name, auto& value, double low, double high, const char* range,
                       const char* help) {
    command.add_option(name, value, help)->check(CLI::Range(low, high, range));
  };
  add("--temperature", flags.temperature, 0.0, 2.0, "0..2",
      "0 is greedy, higher is more random (default: what the model's makers advise, else 0.7)");
  add("--top-p", flags.top_p, 1e-6, 1.0, "0..1",
      "Sample from the smallest set of this much probability (default: the makers', else 1)");
  add("--top-k", flags.top_k, 0, 1 << 24, ">= 0",
      "Sample from the k likeliest tokens; 0: all (default: the makers', else 0)");
  add("--min-p", flags.min_p, 0.0, 0.999999, "0..1",
      "Drop tokens below this share of the likeliest one's probability (default: the makers', else 0)");
  add("--repetition-penalty", flags.repetition_penalty, 0.01, 100.0, "0.01..100",
      "Above 1 discourages repeats (default: the makers', else 1)");
  command.add_option("--seed", flags.seed, "The same seed gives the same answer");
  command.add_option("--stop", flags.stop, "Text that ends the answer; may be given up to 16 times")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--system", flags.system, "System message");
}

GenerateParams generate_params(const SamplingFlags& flags, const ModelInfo& model) {
  GenerateParams params;
  params.model = model.id;
  params.max_tokens = flags.max_tokens;
  const auto choose = [](auto& value, const auto& flag, const auto& advice) {
    if (flag || advice) value = flag ? *flag : *advice;
  };
  choose(params.temperature, flags.temperature, model.sampling.temperature);
  choose(params.top_p, flags.top_p, model.sampling.top_p);
  choose(params.top_k, flags.top_k, model.sampling.top_k);
  choose(params.min_p, flags.min_p, model.sampling.min_p);
  choose(params.repetition_penalty, flags.repetition_penalty, model.sampling.repetition_penalty);
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
