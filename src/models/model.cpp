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
  DecoderSpec (*spec)(const ModelFile&, const ModelConfig&);  // null: an encoder
};

constexpr std::array kFamilies{
    Family{"llama", llama_spec},
    Family{"smollm3", smollm3_spec},
    Family{"mixtral", mixtral_spec},
    Family{"qwen2", qwen2_spec},
    Family{"qwen3", qwen3_spec},
    Family{"qwen3moe", qwen3_moe_spec},
    Family{"gemma2", gemma2_spec},
    Family{"gemma3", gemma3_spec},
    Family{"phi3", phi3_spec},
    Family{"gpt-oss", gpt_oss_spec},
    Family{"deepseek2", deepseek_v3_spec},
    Family{"bert", nullptr},
    Family{"roberta", nullptr},
};

const Family* family_of(const ModelFile& file) {
  const auto found = std::ranges::find(kFamilies, file.architecture(), &Family::architecture);
  return found != kFamilies.end() ? &*found : nullptr;
}

}  // namespace

std::vector<std::string_view> supported_architectures() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies) names.push_back(family.architecture);
  return names;
}

bool is_encoder(const ModelFile& file) {
  const Family* family = family_of(file);
  return family != nullptr && family->spec == nullptr;
}

std::optional<ModelConfig> decoder_config(const ModelFile& file) {
  const Family* family = family_of(file);
  if (family == nullptr || family->spec == nullptr) return std::nullopt;
  const ModelConfig config = read_config(file);
  return with_spec(config, family->spec(file, config));
}

std::unique_ptr<Model> load_model(const ModelFile& file, Backend& backend, WeightCache* cache) {
  const Family* family = family_of(file);
  if (family == nullptr) {
    throw Error(
        ErrorCode::kModelLoad,
        fmt::format("{}: architecture '{}' is not supported", file.path().string(), file.architecture()),
        fmt::format("supported: {}", fmt::join(supported_architectures(), ", ")));
  }
  if (family->spec == nullptr) return load_bert(file, backend, cache);
  const ModelConfig config = read_config(file);
  const DecoderSpec spec = family->spec(file, config);
  return make_decoder(file, backend, cache, with_spec(config, spec), spec);
}

}  // namespace mlxs
