// Safetensors files of any bytes, and what a Hugging Face folder makes of their tensors under four
// configurations: plain, quantized by MLX, block-scaled FP8, gpt-oss's MXFP4 with a drafting block.
#include "formats/safetensors.h"

#include "formats/hf_tensors.h"
#include "fuzz/fuzz_model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const mlxs::SafetensorsContent file = mlxs::parse_safetensors(bytes, "fuzz.safetensors");
    mlxs::HfConfig plain;
    plain.family = mlxs::find_hf_family("llama");
    mlxs::HfConfig quantized = plain, fp8 = plain;
    quantized.quantization = mlxs::MlxQuantization{.bits = 4, .group = 32};
    quantized.overrides["lm_head"] = mlxs::MlxQuantization{.bits = 3, .group = 64};
    quantized.overrides["model.norm"] =
        mlxs::MlxQuantization{.bits = 4, .group = 32, .mode = mlxs::QuantMode::kMxfp4};
    fp8.fp8 = true;
    fp8.fp8_rows = 2;
    fp8.fp8_columns = 3;
    mlxs::HfConfig blocks;
    blocks.family = mlxs::find_hf_family("gpt_oss");
    blocks.layers = blocks.draft_layers = 1;
    for (const mlxs::HfConfig* config : {&plain, &quantized, &fp8, &blocks}) {
      mlxs::ModelContent content;
      try {
        mlxs::add_hf_tensors(file.tensors, *config, "fuzz", content);
        mlxs::fuzz::sink = mlxs::fuzz::read_tensors(content, bytes);
      } catch (const mlxs::Error& error) {
        mlxs::fuzz::check_refusal(error);
      }
    }
  } catch (const mlxs::Error& error) {
    mlxs::fuzz::check_refusal(error);
  }
  return 0;
}
