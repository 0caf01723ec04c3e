#include "backend/cpu/dequantize.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>

#include "backend/cpu/float_bits.h"
#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

using Bytes = const std::uint8_t*;

float read_f16(Bytes at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return f16_to_float(bits);
}

// ---------------------------------------------------------------- one value each

void read_f32_value(Bytes at, float* out) { std::memcpy(out, at, 4); }
void read_f16_value(Bytes at, float* out) { *out = read_f16(at); }
void read_bf16_value(Bytes at, float* out) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  *out = bf16_to_float(bits);
}
void read_f64_value(Bytes at, float* out) {
  double value;
  std::memcpy(&value, at, 8);
  *out = static_cast<float>(value);
}

// ---------------------------------------------------------------- blocks of 32: element i and i + 16 share a
// byte

// f16 d, 16 bytes of nibbles: d · (q - 8)
void read_q4_0(Bytes block, float* out) {
  const float d = read_f16(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

// f16 d, f16 m, nibbles: d · q + m
void read_q4_1(Bytes block, float* out) {
  const float d = read_f16(block), m = read_f16(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

// f16 d, f16 m, 32 codes: d · q + m
void read_q8_min(Bytes block, float* out) {
  const float d = read_f16(block), m = read_f16(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(block[4 + i]) + m;
}

int fifth_bit(Bytes high, int i) { return ((high[i / 8] >> (i % 8)) & 1) << 4; }

// f16 d, 32 fifth bits, nibbles: d · (q - 16)
void read_q5_0(Bytes block, float* out) {
  const float d = read_f16(block);
  const Bytes high = block + 2, low = block + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(((low[i] & 15) | fifth_bit(high, i)) - 16);
    out[i + 16] = d * static_cast<float>(((low[i] >> 4) | fifth_bit(high, i + 16)) - 16);
  }
}

// f16 d, f16 m, 32 fifth bits, nibbles: d · q + m
void read_q5_1(Bytes block, float* out) {
  const float d = read_f16(block), m = read_f16(block + 2);
  const Bytes high = block + 4, low = block + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((low[i] & 15) | fifth_bit(high, i)) + m;
    out[i + 16] = d * static_cast<float>((low[i] >> 4) | fifth_bit(high, i + 16)) + m;
  }
}

// f16 d, 32 signed bytes
void read_q8_0(Bytes block, float* out) {
  const float d = read_f16(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
}

void read_table(Bytes codes, float scale, const std::array<int, 16>& table, float* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(table[codes[i] & 15]);
    out[i + 16] = scale * static_cast<float>(table[codes[i] >> 4]);
  }
}

// f16 d, nibbles into 16 fixed levels
void read_iq4_nl(Bytes block, float* out) {
  static constexpr std::array<int, 16> kLevels{-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
  read_table(block + 2, read_f16(block), kLevels, out);
}

// A shared exponent e, nibbles of FP4 E2M1 (OCP Microscaling 1.0): 2^(e - 127) · value; the table holds
// doubled values.
void read_mxfp4(Bytes block, float* out) {
  static constexpr std::array<int, 16> kDoubled{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const std::uint32_t e = block[0];
  const std::uint32_t half_scale =
      e < 2 ? 0x00200000u << e : (e - 1) << 23;  // 2^(e - 128); the first two are subnormal
  read_table(block + 1, std::bit_cast<float>(half_scale), kDoubled, out);
}

// ---------------------------------------------------------------- "K" blocks of 256 with two-level scales

// The eight 6-bit scales and mins that Q4_K and Q5_K spread over twelve bytes.
struct ScaleMin {
  int scale, min;
};
ScaleMin k_scale_min(Bytes packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  return {(packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4),
          (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4)};
}

// 16 bytes (scale | min << 4) of groups of 16, 64 bytes of 2-bit codes, f16 d, f16 dmin: d·scale·q - dmin·min
void read_q2_k(Bytes block, float* out) {
  const float d = read_f16(block + 80), dmin = read_f16(block + 82);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, shift = i % 128 / 32 * 2;
    const int code = (block[16 + half * 32 + i % 32] >> shift) & 3;
    const int scales = block[i / 16];
    out[i] = d * static_cast<float>(scales & 15) * static_cast<float>(code) -
             dmin * static_cast<float>(scales >> 4);
  }
}

// 32 bytes of third bits, 64 bytes of 2-bit codes, sixteen 6-bit scales in 12 bytes, f16 d: d·(scale - 32)·(q
// - 4)
void read_q3_k(Bytes block, float* out) {
  const Bytes high = block, low = block + 32, scales = block + 96;
  const float d = read_f16(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, part = i % 128 / 32, group = i / 16;
    const int code = ((low[half * 32 + i % 32] >> (2 * part)) & 3) | (((high[i % 32] >> (i / 32)) & 1) << 2);
    const int scale_low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
    const int scale_high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    out[i] = d * static_cast<float>((scale_low | (scale_high << 4)) - 32) * static_cast<float>(code - 4);
  }
}

// f16 d, f16 dmin, scales, 128 bytes of nibbles (a byte holds elements i and i + 32): d·scale·q - dmin·min
void read_q4_k(Bytes block, float* out) {
  const float d = read_f16(block), dmin = read_f16(block + 2);
  for (int i = 0; i < 256; ++i) {
    const ScaleMin s = k_scale_min(block + 4, i / 32);
    const int code = (block[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
    out[i] = d * static_cast<float>(s.scale) * static_cast<float>(code) - dmin * static_cast<float>(s.min);
  }
}

// f16 d, f16 dmin, scales, 32 bytes of fifth bits, nibbles as Q4_K
void read_q5_k(Bytes block, float* out) {
  const float d = read_f16(block), dmin = read_f16(block + 2);
  for (int i = 0; i < 256; ++i) {
    const ScaleMin s = k_scale_min(block + 4, i / 32);
    const int low = (block[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
    const int code = low | (((block[16 + i % 32] >> (i / 32)) & 1) << 4);
    out[i] = d * static_cast<float>(s.scale) * static_cast<float>(code) - dmin * static_cast<float>(s.min);
  }
}

// 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 signed scales of groups of 16, f16 d: d·scale·(q -
// 32)
void read_q6_k(Bytes block, float* out) {
  const float d = read_f16(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, part = i % 128 / 32;
    const int low = (block[half * 64 + i % 64] >> (part / 2 * 4)) & 15;
    const int high = (block[128 + half * 32 + i % 32] >> (2 * part)) & 3;
    const auto scale = static_cast<float>(static_cast<std::int8_t>(block[192 + i / 16]));
    out[i] = d * scale * static_cast<float>((low | (high << 4)) - 32);
  }
}

using ReadBlock = void (*)(Bytes, float*);

ReadBlock reader(DType type) {
  switch (type) {
    case DType::kF32:
      return read_f32_value;
    case DType::kF16:
      return read_f16_value;
    case DType::kBF16:
      return read_bf16_value;
    case DType::kF64:
      return read_f64_value;
    case DType::kQ4_0:
      return read_q4_0;
    case DType::kQ4_1:
      return read_q4_1;
    case DType::kQ5_0:
      return read_q5_0;
    case DType::kQ5_1:
      return read_q5_1;
    case DType::kQ8_0:
      return read_q8_0;
    case DType::kQ8Min:
      return read_q8_min;
    case DType::kQ2_K:
      return read_q2_k;
    case DType::kQ3_K:
      return read_q3_k;
    case DType::kQ4_K:
      return read_q4_k;
    case DType::kQ5_K:
      return read_q5_k;
    case DType::kQ6_K:
      return read_q6_k;
    case DType::kIQ4_NL:
      return read_iq4_nl;
    case DType::kMXFP4:
      return read_mxfp4;
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kMlx2:  // with scales beside them: regroup.h
    case DType::kMlx3:
    case DType::kMlx4:
    case DType::kMlx5:
    case DType::kMlx6:
    case DType::kMlx8:
    case DType::kMlxFp4:
    case DType::kF8E4M3:
    case DType::kE8M0:
      break;
  }
  return nullptr;
}

}  // namespace

bool can_dequantize(DType type) { return reader(type) != nullptr; }

void dequantize_row(DType type, const std::byte* row, std::int64_t columns, float* out) {
  const ReadBlock read = reader(type);
  const DTypeInfo& info = dtype_info(type);
  if (read == nullptr) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{} is no type of weights", info.name));
  }
  const auto* block = reinterpret_cast<Bytes>(row);
  for (std::int64_t i = 0; i < columns; i += info.block_elements, block += info.block_bytes)
    read(block, out + i);
}

}  // namespace mlxs::cpu
