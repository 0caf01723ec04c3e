// Model files of any bytes: opened, or refused with kModelLoad. What opens is read in full through the public
// interface.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "formats/model_file.h"
#include "mlxs/error.h"

namespace {

volatile std::uint64_t sink;  // keeps the reads

void read_everything(const mlxs::ModelFile& file, std::span<const std::byte> whole) {
  std::uint64_t sum = file.architecture().size() + file.fingerprint().size();
  for (const auto& [key, value] : file.metadata()) {
    if (!file.has(key)) std::abort();
    if (const auto* text = std::get_if<std::string_view>(&value)) {
      for (const char c : *text) sum += static_cast<unsigned char>(c);
    } else if (const auto* list = std::get_if<std::vector<std::string_view>>(&value)) {
      for (const auto& entry : *list) sum += entry.empty() ? 0 : static_cast<unsigned char>(entry.back());
    }
  }
  const std::byte* end = whole.data() + whole.size();
  for (const mlxs::TensorInfo& tensor : file.tensors()) {
    if (file.find_tensor(tensor.name) != &tensor) std::abort();
    if (tensor.bytes.data() < whole.data() || tensor.bytes.data() + tensor.bytes.size() > end) std::abort();
    std::uint64_t rows = 1;
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i)
      rows *= static_cast<std::uint64_t>(tensor.shape[i]);
    if (rows * mlxs::row_bytes(tensor.type, tensor.shape.back()) != tensor.bytes.size()) std::abort();
    for (const std::byte byte : tensor.bytes) sum += static_cast<std::uint64_t>(byte);
  }
  sink = sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    read_everything(*mlxs::ModelFile::open_bytes(bytes, "fuzz.gguf"), bytes);
  } catch (const mlxs::Error& error) {
    if (error.code() != mlxs::ErrorCode::kModelLoad || error.hint().empty()) std::abort();
    if (error.full().find('\n') != std::string::npos) std::abort();
  }
  return 0;
}
