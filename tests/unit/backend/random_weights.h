// Random tensors in every storage type, with finite scales of a known size, for tests of packing and kernels.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/float_bits.h"
#include "backend/ops.h"
#include "base/dtype.h"

namespace mlxs::cpu::test {

inline constexpr DType kWeightTypes[] = {
    DType::kF32,  DType::kF16,    DType::kBF16,  DType::kQ4_0,  DType::kQ4_1, DType::kQ5_0,
    DType::kQ5_1, DType::kQ8_0,   DType::kQ2_K,  DType::kQ3_K,  DType::kQ4_K, DType::kQ5_K,
    DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4, DType::kQ8Min,
};

struct RandomWeight {
  std::string name;
  DType type;
  std::int64_t rows, columns;
  std::vector<std::byte> bytes;
  double largest;  // bound of |scale · code| + |min|, from the ranges below

  // Types whose scales lie beside them (MLX's, FP8): these, and what the tensor then is by definition.
  GroupScales grouping = {};
  std::vector<std::byte> scales = {}, biases = {};
  std::vector<float> values = {};

  RawWeight raw() const {
    RawWeight weight{name, type, rows, columns, bytes, grouping};
    weight.scales.scales = scales;
    weight.scales.biases = biases;
    return weight;
  }
  void read_row(std::int64_t row, float* out) const {
    if (grouping) {
      std::copy_n(values.begin() + row * columns, columns, out);
    } else {
      dequantize_row(type, bytes.data() + static_cast<std::size_t>(row) * row_bytes(type, columns), columns,
                     out);
    }
  }
};

// Offsets of the f16 scales in a block (-1: none), and how far values reach in units of the scale.
struct ScaleFields {
  int scale = -1, min = -1;
  double reach = 1.0, min_reach = 0.0;
};
inline ScaleFields scale_fields(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {0, -1, 15 + 8};
    case DType::kQ4_1:
      return {0, 2, 15, 1};
    case DType::kQ5_0:
      return {0, -1, 31 + 16};
    case DType::kQ5_1:
      return {0, 2, 31, 1};
    case DType::kQ8_0:
      return {0, -1, 255 + 128};
    case DType::kQ8Min:
      return {0, 2, 255, 1};
    case DType::kQ2_K:
      return {80, 82, 15 * 3, 15};
    case DType::kQ3_K:
      return {108, -1, 32 * 11};
    case DType::kQ4_K:
      return {0, 2, 63 * 15, 63};
    case DType::kQ5_K:
      return {0, 2, 63 * 31, 63};
    case DType::kQ6_K:
      return {208, -1, 128 * 95};
    case DType::kIQ4_NL:
      return {0, -1, 255 + 128};
    default:
      return {};
  }
}

inline RandomWeight random_weight(DType type, std::int64_t rows, std::int64_t columns, std::mt19937& random,
                                  std::string name = "weight") {
  const DTypeInfo& info = dtype_info(type);
  RandomWeight w{std::move(name), type, rows, columns, {}, 0.0};
  w.bytes.resize(row_bytes(type, columns) * static_cast<std::size_t>(rows));
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::uniform_real_distribution<float> half_to_one(0.5f, 1.0f);
  const auto put = [](std::byte* at, std::uint16_t bits) { std::memcpy(at, &bits, 2); };
  if (info.block_elements == 1) {
    for (std::size_t i = 0; i < w.bytes.size(); i += static_cast<std::size_t>(info.block_bytes)) {
      const float value = std::clamp(normal(random), -2.0f, 2.0f);
      if (type == DType::kF32) std::memcpy(&w.bytes[i], &value, 4);
      if (type == DType::kF16) put(&w.bytes[i], float_to_f16(value));
      if (type == DType::kBF16) put(&w.bytes[i], float_to_bf16(value));
    }
    w.largest = 2.0;
    return w;
  }
  for (std::byte& byte : w.bytes) byte = static_cast<std::byte>(random() >> 11);
  const ScaleFields fields = scale_fields(type);
  const double unit = 2.0 / (fields.reach + fields.min_reach);
  for (std::size_t block = 0; block < w.bytes.size(); block += static_cast<std::size_t>(info.block_bytes)) {
    const auto scale = [&] { return float_to_f16(static_cast<float>(unit) * half_to_one(random)); };
    if (fields.scale >= 0) put(&w.bytes[block + static_cast<std::size_t>(fields.scale)], scale());
    if (fields.min >= 0) put(&w.bytes[block + static_cast<std::size_t>(fields.min)], scale());
    if (type == DType::kMXFP4) w.bytes[block] = static_cast<std::byte>(122 + random() % 4);  // 2^-5 … 2^-2
  }
  w.largest =
      type == DType::kMXFP4 ? (12 + 2 * 128) * 0.125 : 2.0;  // MXFP4: the kernels' table is offset by 128
  return w;
}

// As a file keeps floats of a type.
inline std::vector<std::byte> stored_floats(DType type, const std::vector<float>& values) {
  const std::size_t size = static_cast<std::size_t>(dtype_info(type).block_bytes);
  std::vector<std::byte> bytes(values.size() * size);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half = type == DType::kF16 ? float_to_f16(values[i]) : float_to_bf16(values[i]);
    if (type == DType::kF32) {
      std::memcpy(&bytes[i * size], &values[i], size);
    } else {
      std::memcpy(&bytes[i * size], &half, size);
    }
  }
  return bytes;
}

// MLX's affine quantization, written out bit by bit: w = scale · code + bias, codes in one little-endian
// stream of bits.
struct MlxWidth {
  DType type;
  int bits;
};
inline constexpr MlxWidth kMlxWidths[] = {{DType::kMlx2, 2}, {DType::kMlx3, 3}, {DType::kMlx4, 4},
                                          {DType::kMlx5, 5}, {DType::kMlx6, 6}, {DType::kMlx8, 8}};
inline constexpr int kMlxGroups[] = {32, 64, 128};

inline RandomWeight random_affine(MlxWidth width, int group, DType scale_type, std::int64_t rows,
                                  std::int64_t columns, std::mt19937& random) {
  const auto [type, bits] = width;
  RandomWeight w{"weight", type, rows, columns, {}, 0.0};
  w.bytes.resize(static_cast<std::size_t>(rows * columns * bits / 8));
  std::vector<float> scales, biases;
  std::uniform_real_distribution<float> size(0.1f, 1.0f);
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    if (i % group == 0) {  // few significant bits: exact in every float type
      scales.push_back(std::ldexp(std::round(size(random) * 50.0f), -5 - bits));
      biases.push_back(-scales.back() * static_cast<float>(1 << (bits - 1)));
      w.largest = std::max(w.largest, 1.5 * scales.back() * (1 << bits));
    }
    const auto code = static_cast<std::uint32_t>(random() & ((1u << bits) - 1));
    for (int b = 0; b < bits; ++b) {
      const std::int64_t at = i * bits + b;
      if ((code >> b) & 1u) w.bytes[static_cast<std::size_t>(at / 8)] |= static_cast<std::byte>(1 << at % 8);
    }
    w.values.push_back(scales.back() * static_cast<float>(code) + biases.back());
  }
  w.scales = stored_floats(scale_type, scales);
  w.biases = stored_floats(scale_type, biases);
  w.grouping = {.type = scale_type, .group = group};
  return w;
}

}  // namespace mlxs::cpu::test
