#include "serve/sampling_defaults.h"

#include <nlohmann/json.hpp>

namespace mlxs {

SamplingSaid sampling_said(const nlohmann::json& fields) {
  const auto says = [&](const char* name) {
    const auto found = fields.find(name);
    return found != fields.end() && !found->is_null();
  };
  return {.temperature = says("temperature"),
          .top_p = says("top_p"),
          .top_k = says("top_k"),
          .min_p = says("min_p"),
          .repetition_penalty = says("repetition_penalty") || says("repeat_penalty")};
}

void set_defaults(SamplingDefaults defaults, const SamplingAdvice& advice, const SamplingSaid& said,
                  GenerateParams& params) {
  if (defaults == SamplingDefaults::kDialect) return;
  const auto choose = [](auto& value, bool is_said, const auto& advised) {
    if (!is_said && advised) value = *advised;
  };
  choose(params.temperature, said.temperature, advice.temperature);
  choose(params.top_p, said.top_p, advice.top_p);
  choose(params.top_k, said.top_k, advice.top_k);
  choose(params.min_p, said.min_p, advice.min_p);
  choose(params.repetition_penalty, said.repetition_penalty, advice.repetition_penalty);
}

}  // namespace mlxs
