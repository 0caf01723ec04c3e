// What the families' files say, one file each, and what two of them share. A new family adds a line here and
// one in model.cpp's table.
#pragma once

#include "models/decoder.h"

namespace mlxs {

DecoderSpec llama_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec smollm3_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec mixtral_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec qwen2_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec qwen3_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec qwen3_moe_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec gemma2_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec gemma3_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec phi3_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec gpt_oss_spec(const ModelFile& file, const ModelConfig& config);
DecoderSpec deepseek_v3_spec(const ModelFile& file, const ModelConfig& config);

ExpertsSpec mixtral_experts(const ModelFile& file, const ModelConfig& config);
DecoderSpec gemma_spec(const ModelFile& file, const ModelConfig& config, std::int32_t pattern,
                       std::int32_t layers_of_27b);

}  // namespace mlxs
