// The loaders of all model families, one file each, and what two of them share. A new family adds a line here
// and one in model.cpp's table.
#pragma once

#include <memory>

#include "models/decoder.h"
#include "models/model.h"

namespace mlxs {

std::unique_ptr<Model> load_llama(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_smollm3(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_mixtral(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_qwen2(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_qwen3(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_qwen3_moe(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_gemma2(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_gemma3(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_phi3(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_gpt_oss(const ModelFile& file, Backend& backend, WeightCache* cache);
std::unique_ptr<Model> load_deepseek_v3(const ModelFile& file, Backend& backend, WeightCache* cache);

ExpertsSpec mixtral_experts(const ModelFile& file, const ModelConfig& config);
DecoderSpec gemma_spec(const ModelFile& file, const ModelConfig& config, std::int32_t pattern,
                       std::int32_t layers_of_27b);

}  // namespace mlxs
