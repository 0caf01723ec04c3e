// model.safetensors.index.json of any bytes: no file outside its folder is ever named.
#include "formats/weight_index.h"

#include "fuzz/fuzz_model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto index = mlxs::parse_weight_index(std::as_bytes(std::span(data, size)), "index.json");
    if (index.file_of.empty()) std::abort();
    for (const auto& [tensor, file] : index.file_of) {
      if (file.find('/') != std::string::npos || file.find('\0') != std::string::npos || file == "..")
        std::abort();
    }
  } catch (const mlxs::Error& error) {
    mlxs::fuzz::check_refusal(error);
  }
  return 0;
}
