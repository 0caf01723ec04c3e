// config.json of any bytes.
#include "formats/hf_config.h"

#include "formats/json_file.h"
#include "fuzz/fuzz_model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mlxs::ModelContent content;
  try {
    const auto json = mlxs::parse_json_object(std::as_bytes(std::span(data, size)), "config.json");
    const mlxs::HfConfig config = mlxs::read_hf_config(json, "config.json", content);
    if (config.family == nullptr) std::abort();
    if (config.quantization && (config.quantization->bits < 2 || config.quantization->group < 32))
      std::abort();
    if (config.fp8_rows < 1 || config.fp8_columns < 1) std::abort();
    mlxs::fuzz::sink = mlxs::fuzz::read_metadata(content);
  } catch (const mlxs::Error& error) {
    mlxs::fuzz::check_refusal(error);
  }
  return 0;
}
