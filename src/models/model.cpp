#include "models/model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "mlxs/error.h"
#include "models/encoder.h"
#include "models/families.h"

namespace mlxs {
namespace {

struct Family {
  std::string_view architecture;
  std::unique_ptr<Model> (*load)(const ModelFile&, Backend&, WeightCache*);
};

constexpr std::array kFamilies{
    Family{"llama", load_llama},
    Family{"smollm3", load_smollm3},
    Family{"mixtral", load_mixtral},
    Family{"qwen2", load_qwen2},
    Family{"qwen3", load_qwen3},
    Family{"qwen3moe", load_qwen3_moe},
    Family{"gemma2", load_gemma2},
    Family{"gemma3", load_gemma3},
    Family{"phi3", load_phi3},
    Family{"gpt-oss", load_gpt_oss},
    Family{"deepseek2", load_deepseek_v3},
    Family{"bert", load_bert},
    Family{"roberta", load_bert},
};

}  // namespace

std::vector<std::string_view> supported_architectures() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies) names.push_back(family.architecture);
  return names;
}

bool is_encoder(const ModelFile& file) {
  const auto family = std::ranges::find(kFamilies, file.architecture(), &Family::architecture);
  return family != kFamilies.end() && family->load == load_bert;
}

std::unique_ptr<Model> load_model(const ModelFile& file, Backend& backend, WeightCache* cache) {
  const auto family = std::ranges::find(kFamilies, file.architecture(), &Family::architecture);
  if (family == kFamilies.end()) {
    throw Error(
        ErrorCode::kModelLoad,
        fmt::format("{}: architecture '{}' is not supported", file.path().string(), file.architecture()),
        fmt::format("supported: {}", fmt::join(supported_architectures(), ", ")));
  }
  return family->load(file, backend, cache);
}

}  // namespace mlxs
