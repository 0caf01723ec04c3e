// What a request is sampled with where it does not say: as its dialect documents, or as the model's makers
// advise (ModelInfo::sampling) and then as the dialect documents. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "mlxs/engine.h"

namespace mlxs {

enum class SamplingDefaults : std::uint8_t { kDialect, kModel };

// What a request says itself.
struct SamplingSaid {
  bool temperature = false, top_p = false, top_k = false, min_p = false, repetition_penalty = false;
};
// fields: the object that has them, by the names of any dialect; null is not said.
SamplingSaid sampling_said(const nlohmann::json& fields);

// With kModel, what the request does not say becomes what the makers advise, where they do.
void set_defaults(SamplingDefaults defaults, const SamplingAdvice& advice, const SamplingSaid& said,
                  GenerateParams& params);

}  // namespace mlxs
