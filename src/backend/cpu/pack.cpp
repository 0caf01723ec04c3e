#include "backend/cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/float_bits.h"
#include "backend/cpu/split_block.h"

namespace mlxs::cpu {
namespace {

using Bytes = const std::uint8_t*;

std::uint16_t read_u16(Bytes at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}
float read_f16(Bytes at) { return f16_to_float(read_u16(at)); }

// ---------------------------------------------------------------- writing a lane of a block

void put_u32(std::byte* at, std::uint32_t value) { std::memcpy(at, &value, 4); }

std::uint32_t four_codes(const std::uint8_t* codes) {
  std::uint32_t word;
  std::memcpy(&word, codes, 4);
  return word;
}

void write_low_nibbles(const SplitBlock& block, int lane, std::byte* out) {
  for (int j = 0; j < 4; ++j) {
    const std::uint32_t even = four_codes(block.codes + 8 * j) & 0x0f0f0f0fu;
    const std::uint32_t odd = four_codes(block.codes + 8 * j + 4) & 0x0f0f0f0fu;
    put_u32(out + j * 64 + lane * 4, even | (odd << 4));
  }
}

void write_codes(Codes codes, const SplitBlock& block, int lane, std::byte* out) {
  if (codes == Codes::k8) {
    for (int v = 0; v < 8; ++v)
      put_u32(out + v * 64 + lane * 4, four_codes(block.codes + 4 * v) ^ 0x80808080u);
    return;
  }
  write_low_nibbles(block, lane, out);
  if (codes == Codes::k5) {
    for (int v = 0; v < 8; ++v) {
      std::uint64_t bits;
      std::memcpy(&bits, out + 256 + v * 8, 8);
      for (int i = 0; i < 4; ++i) {
        bits |= static_cast<std::uint64_t>(block.codes[4 * v + i] >> 4) << (4 * lane + i);
      }
      std::memcpy(out + 256 + v * 8, &bits, 8);
    }
  } else if (codes == Codes::k6) {
    for (int h = 0; h < 2; ++h) {
      std::uint32_t word = 0;
      for (int t = 0; t < 4; ++t)
        word |= ((four_codes(block.codes + 16 * h + 4 * t) >> 4) & 0x03030303u) << (2 * t);
      put_u32(out + 256 + h * 64 + lane * 4, word);
    }
  }
}

void write_scales(const PackedFormat& format, const SplitBlock& block, int lane, std::byte* out) {
  const int groups = kBlock / format.group;
  for (int g = 0; g < groups; ++g) std::memcpy(out + (g * kLanes + lane) * 2, &block.scales[g], 2);
  if (!format.has_min) return;
  for (int g = 0; g < groups; ++g) std::memcpy(out + ((groups + g) * kLanes + lane) * 2, &block.mins[g], 2);
}

template <class Element>
void pack_dense(const std::byte* first_row, std::size_t row_stride, int rows, std::int64_t columns, int unit,
                std::byte* panel) {
  auto* out = reinterpret_cast<Element*>(panel);  // [columns / unit][lane][unit]
  for (int lane = 0; lane < rows; ++lane) {
    const std::byte* row = first_row + static_cast<std::size_t>(lane) * row_stride;
    for (std::int64_t k = 0; k < columns; ++k) {
      std::memcpy(out + (k / unit * kLanes + lane) * unit + k % unit,
                  row + static_cast<std::size_t>(k) * sizeof(Element), sizeof(Element));
    }
  }
}

}  // namespace

std::optional<Packing> packing_of(DType type) {
  switch (type) {
    case DType::kF32:
      return Packing::kF32;
    case DType::kF16:
      return Packing::kF16;
    case DType::kBF16:
      return Packing::kBF16;
    case DType::kQ4_0:
      return Packing::k4;
    case DType::kQ4_1:
    case DType::kQ4_K:
      return Packing::k4Min;
    case DType::kQ5_0:
      return Packing::k5;
    case DType::kQ5_1:
    case DType::kQ5_K:
      return Packing::k5Min;
    case DType::kQ8_0:
      return Packing::k8;
    case DType::kQ8Min:
      return Packing::k8Min;
    case DType::kQ2_K:
      return Packing::k4Min16;
    case DType::kQ3_K:
      return Packing::k4Group16;
    case DType::kQ6_K:
      return Packing::k6Group16;
    case DType::kIQ4_NL:
      return Packing::kTableF16;
    case DType::kMXFP4:
      return Packing::kTableBF16;
    default:
      return {};
  }
}

void pack_panel(DType type, const std::byte* first_row, std::size_t row_stride, int rows,
                std::int64_t columns, std::byte* panel) {
  const Packing packing = *packing_of(type);
  const PackedFormat& format = packed_format(packing);
  std::memset(panel, 0, panel_bytes(packing, columns));
  if (type == DType::kF32) return pack_dense<std::uint32_t>(first_row, row_stride, rows, columns, 1, panel);
  if (type == DType::kF16) return pack_dense<std::uint16_t>(first_row, row_stride, rows, columns, 1, panel);
  if (type == DType::kBF16) return pack_dense<std::uint16_t>(first_row, row_stride, rows, columns, 2, panel);

  const Split split = splitter(type);
  const int blocks = blocks_of(columns);
  std::byte* scales = panel + static_cast<std::size_t>(blocks) * format.code_bytes();
  SplitBlock block{};
  for (int lane = 0; lane < rows; ++lane) {
    const auto* row = reinterpret_cast<Bytes>(first_row + static_cast<std::size_t>(lane) * row_stride);
    for (int b = 0; b < blocks; ++b) {
      split(row, b, block);
      write_codes(format.codes, block, lane, panel + static_cast<std::size_t>(b) * format.code_bytes());
      write_scales(format, block, lane, scales + static_cast<std::size_t>(b) * format.scale_bytes());
    }
  }
}

// ---------------------------------------------------------------- and back

namespace {

int read_code(Codes codes, const std::uint8_t* block, int lane, int k) {
  const int v = k / 4, byte = lane * 4 + k % 4;
  if (codes == Codes::k8) return block[v * 64 + byte] ^ 0x80;
  const int low = (block[v / 2 * 64 + byte] >> (v % 2 * 4)) & 15;
  if (codes == Codes::k5) {
    std::uint64_t bits;
    std::memcpy(&bits, block + 256 + v * 8, 8);
    return low | static_cast<int>(((bits >> byte) & 1u) << 4);
  }
  if (codes == Codes::k6) return low | (((block[256 + v / 4 * 64 + byte] >> (v % 4 * 2)) & 3) << 4);
  return low;
}

float read_dense(Codes codes, const std::byte* panel, int lane, std::int64_t k) {
  if (codes == Codes::kF32) {
    float value;
    std::memcpy(&value, panel + (k * kLanes + lane) * 4, 4);
    return value;
  }
  std::uint16_t bits;
  if (codes == Codes::kF16) {
    std::memcpy(&bits, panel + (k * kLanes + lane) * 2, 2);
    return f16_to_float(bits);
  }
  std::memcpy(&bits, panel + ((k / 2 * kLanes + lane) * 2 + k % 2) * 2, 2);
  return bf16_to_float(bits);
}

}  // namespace

void unpack_row(Packing packing, const std::byte* panel, int lane, std::int64_t columns, float* out) {
  const PackedFormat& format = packed_format(packing);
  if (format.dense()) {
    for (std::int64_t k = 0; k < columns; ++k) out[k] = read_dense(format.codes, panel, lane, k);
    return;
  }
  const int blocks = blocks_of(columns);
  const auto* codes = reinterpret_cast<Bytes>(panel);
  const auto* scales = codes + static_cast<std::size_t>(blocks) * format.code_bytes();
  const std::uint8_t* table = format.codes == Codes::kTable ? code_table(packing) : nullptr;
  const int groups = kBlock / format.group;
  for (int b = 0; b < blocks; ++b, codes += format.code_bytes(), scales += format.scale_bytes()) {
    for (int k = 0; k < kBlock; ++k) {
      const int group = k / format.group;
      const std::uint16_t scale_bits = read_u16(scales + (group * kLanes + lane) * 2);
      const float scale = format.bf16_scale ? bf16_to_float(scale_bits) : f16_to_float(scale_bits);
      const float min = format.has_min ? read_f16(scales + ((groups + group) * kLanes + lane) * 2) : 0.0f;
      const int code = read_code(format.codes, codes, lane, k);
      const int value = (table != nullptr ? table[code] : code) - format.zero;
      out[b * kBlock + k] = scale * static_cast<float>(value) + min;
    }
  }
}

}  // namespace mlxs::cpu
