#include "backend/cpu/regroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backend/code_bits.h"
#include "backend/cpu/float_bits.h"
#include "backend/cpu/pack.h"
#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

float read_scale(DType type, std::span<const std::byte> values, std::int64_t index) {
  const std::byte* at = values.data() + index * dtype_info(type).block_bytes;
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  if (type == DType::kE8M0) return std::ldexp(1.0f, static_cast<int>(*at) - 127);
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return type == DType::kF16 ? f16_to_float(bits) : bf16_to_float(bits);
}

void put_f16(float value, std::byte* out) {
  const std::uint16_t bits = float_to_f16(value);
  std::memcpy(out, &bits, 2);
}

// `bits` bits from position `index · bits` of a little-endian stream that ends at a multiple of 32 codes.
std::uint32_t read_code(const std::uint8_t* codes, std::int64_t index, int bits) {
  const std::int64_t at = index * bits;
  const int shift = static_cast<int>(at % 8);
  std::uint32_t window = codes[at / 8];
  if (shift + bits > 8) window |= static_cast<std::uint32_t>(codes[at / 8 + 1]) << 8;
  return (window >> shift) & ((1u << bits) - 1);
}

// The nibbles of a ggml block of 32: element i in the low half of byte i, i + 16 in the high half.
void put_nibbles(const std::uint32_t* codes, std::byte* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<std::byte>((codes[i] & 15u) | ((codes[i + 16] & 15u) << 4));
  }
}

float f8_e4m3(std::uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

void regroup_affine(const RawWeight& weight, std::int64_t row, DType target, std::byte* out) {
  const GroupScales& s = weight.scales;
  const int bits = mlx_code_bits(weight.type);
  const auto* codes = reinterpret_cast<const std::uint8_t*>(weight.bytes.data()) +
                      static_cast<std::size_t>(row) * row_bytes(weight.type, weight.columns);
  const std::int64_t first_group = row * (weight.columns / s.group);
  std::uint32_t block[32];
  for (std::int64_t column = 0; column < weight.columns; column += 32) {
    for (int i = 0; i < 32; ++i) block[i] = read_code(codes, column + i, bits);
    const std::int64_t group = first_group + column / s.group;
    const float scale = read_scale(s.type, s.scales, group);
    const float bias = s.biases.empty() ? 0.0f : read_scale(s.type, s.biases, group);
    put_f16(scale, out);
    put_f16(bias, out + 2);
    out += 4;
    if (target == DType::kQ8Min) {
      for (int i = 0; i < 32; ++i) *out++ = static_cast<std::byte>(block[i]);
      continue;
    }
    if (target == DType::kQ5_1) {
      std::uint32_t fifth = 0;
      for (int i = 0; i < 32; ++i) fifth |= (block[i] >> 4) << i;
      std::memcpy(out, &fifth, 4);
      out += 4;
    }
    put_nibbles(block, out);
    out += 16;
  }
}

void regroup_fp4(const RawWeight& weight, std::int64_t row, std::byte* out) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(weight.bytes.data()) +
                      static_cast<std::size_t>(row) * row_bytes(weight.type, weight.columns);
  const std::byte* scale = weight.scales.scales.data() + row * (weight.columns / 32);
  std::uint32_t block[32];
  for (std::int64_t column = 0; column < weight.columns; column += 32, out += 17) {
    for (int i = 0; i < 32; ++i) block[i] = read_code(codes, column + i, 4);
    out[0] = *scale++;
    put_nibbles(block, out + 1);
  }
}

void regroup_fp8(const RawWeight& weight, std::int64_t row, std::byte* out) {
  const GroupScales& s = weight.scales;
  const auto* codes = reinterpret_cast<const std::uint8_t*>(weight.bytes.data()) + row * weight.columns;
  const std::int64_t groups = (weight.columns + s.group - 1) / s.group;
  for (std::int64_t k = 0; k < weight.columns; ++k, out += 2) {
    const float scale = read_scale(s.type, s.scales, row / s.group_rows * groups + k / s.group);
    const std::uint16_t bits = float_to_bf16(scale * f8_e4m3(codes[k]));
    std::memcpy(out, &bits, 2);
  }
}

}  // namespace

std::optional<DType> regrouped_type(DType type) {
  switch (type) {
    case DType::kMlx2:
    case DType::kMlx3:
    case DType::kMlx4:
      return DType::kQ4_1;
    case DType::kMlx5:
      return DType::kQ5_1;
    case DType::kMlx6:
    case DType::kMlx8:
      return DType::kQ8Min;
    case DType::kMlxFp4:
      return DType::kMXFP4;
    case DType::kF8E4M3:
      return DType::kBF16;
    default:
      return packing_of(type) ? std::optional(type) : std::nullopt;
  }
}

void check_scales(const RawWeight& weight) {
  const auto fail = [&](std::string_view what) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("tensor '{}' ({} [{}, {}]) {}", weight.name, dtype_info(weight.type).name,
                            weight.rows, weight.columns, what),
                "the file is damaged or from an incompatible converter: download it again");
  };
  const GroupScales& s = weight.scales;
  if (regrouped_type(weight.type) == weight.type) {
    if (s) fail("has scales beside a type that carries its own");
    return;
  }
  if (!s) fail("has no scales");
  const bool fp4 = weight.type == DType::kMlxFp4, fp8 = weight.type == DType::kF8E4M3;
  if (fp4 ? s.group != 32 : !fp8 && s.group != 32 && s.group != 64 && s.group != 128)
    fail(fmt::format("has groups of {}", s.group));
  if (s.group < 1 || s.group_rows < 1 || (!fp8 && (s.group_rows != 1 || weight.columns % s.group != 0)))
    fail(fmt::format("cannot be cut into groups of {} × {}", s.group_rows, s.group));
  if (fp4 ? s.type != DType::kE8M0 : s.type != DType::kF32 && s.type != DType::kF16 && s.type != DType::kBF16)
    fail(fmt::format("has {} scales", dtype_info(s.type).name));
  const std::int64_t groups =
      ((weight.rows + s.group_rows - 1) / s.group_rows) * ((weight.columns + s.group - 1) / s.group);
  const std::size_t bytes = row_bytes(s.type, groups);
  if (s.scales.size() != bytes)
    fail(fmt::format("has {} bytes of scales instead of {}", s.scales.size(), bytes));
  if (!s.biases.empty() && (s.biases.size() != bytes || fp4 || fp8))
    fail(fmt::format("has {} bytes of biases", s.biases.size()));
}

void regroup_row(const RawWeight& weight, std::int64_t row, std::byte* out) {
  const DType target = *regrouped_type(weight.type);
  if (weight.type == DType::kMlxFp4) return regroup_fp4(weight, row, out);
  if (weight.type == DType::kF8E4M3) return regroup_fp8(weight, row, out);
  if (weight.scales) return regroup_affine(weight, row, target, out);
  const std::size_t bytes = row_bytes(weight.type, weight.columns);
  std::memcpy(out, weight.bytes.data() + static_cast<std::size_t>(row) * bytes, bytes);
}

}  // namespace mlxs::cpu
