// What the fuzzers of model files share: reading everything that was accepted, and the rule for refusals.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <span>

#include "formats/model_content.h"
#include "mlxs/error.h"

namespace mlxs::fuzz {

inline volatile std::uint64_t sink;  // keeps the reads

inline std::uint64_t read_metadata(const ModelContent& content) {
  std::uint64_t sum = 0;
  for (const auto& [key, value] : content.metadata) {
    sum += key.size();
    if (const auto* text = std::get_if<std::string_view>(&value)) {
      for (const char c : *text) sum += static_cast<unsigned char>(c);
    } else if (const auto* list = std::get_if<std::vector<std::int64_t>>(&value)) {
      sum += list->size();
    }
  }
  return sum;
}

// Tensors lie within the input and have exactly the bytes of their shape, codes and scales alike.
inline std::uint64_t read_tensors(const ModelContent& content, std::span<const std::byte> whole) {
  std::uint64_t sum = 0;
  const auto inside = [&](std::span<const std::byte> part) {
    if (part.empty()) return;
    if (part.data() < whole.data() || part.data() + part.size() > whole.data() + whole.size()) std::abort();
    for (const std::byte byte : part) sum += static_cast<std::uint64_t>(byte);
  };
  for (const TensorInfo& tensor : content.tensors) {
    if (tensor.shape.empty() || tensor.shape.back() % dtype_info(tensor.type).block_elements != 0)
      std::abort();
    std::int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
    if (static_cast<std::uint64_t>(rows) * row_bytes(tensor.type, tensor.shape.back()) !=
        tensor.bytes.size()) {
      std::abort();
    }
    inside(tensor.bytes);
    inside(tensor.scales.scales);
    inside(tensor.scales.biases);
    if (!tensor.scales) continue;
    const GroupScales& s = tensor.scales;
    const std::int64_t groups =
        (rows + s.group_rows - 1) / s.group_rows * ((tensor.shape.back() + s.group - 1) / s.group);
    if (s.scales.size() != row_bytes(s.type, groups)) std::abort();
    if (!s.biases.empty() && s.biases.size() != s.scales.size()) std::abort();
  }
  return sum;
}

// One line that says what is wrong and what to do.
inline void check_refusal(const Error& error) {
  if (error.code() != ErrorCode::kModelLoad || error.hint().empty()) std::abort();
  if (error.full().find('\n') != std::string::npos || error.full().size() > 4096) std::abort();
}

}  // namespace mlxs::fuzz
