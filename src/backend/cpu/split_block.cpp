#include "backend/cpu/split_block.h"

#include <cstring>

#include "backend/cpu/float_bits.h"

namespace mlxs::cpu {
namespace {

using Bytes = const std::uint8_t*;

// Folding a NaN's payload away lets kernels round scaled weights with integer arithmetic.
std::uint16_t clean_f16(std::uint16_t bits) {
  return (bits & 0x7fffu) > 0x7c00u ? std::uint16_t{0x7e00} : bits;
}

std::uint16_t read_u16(Bytes at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}
float read_f16(Bytes at) { return f16_to_float(read_u16(at)); }

void split_nibbles(Bytes low, std::uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = low[i] & 15;
    codes[i + 16] = static_cast<std::uint8_t>(low[i] >> 4);
  }
}
void add_fifth_bits(std::uint32_t bits, std::uint8_t* codes) {
  for (int i = 0; i < kBlock; ++i) codes[i] = static_cast<std::uint8_t>(codes[i] | (((bits >> i) & 1u) << 4));
}
std::uint32_t read_u32(Bytes at) {
  std::uint32_t bits;
  std::memcpy(&bits, at, 4);
  return bits;
}

void split_q4_0(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 18;
  out.scales[0] = clean_f16(read_u16(block));
  split_nibbles(block + 2, out.codes);
}
void split_q4_1(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 20;
  out.scales[0] = clean_f16(read_u16(block));
  out.mins[0] = clean_f16(read_u16(block + 2));
  split_nibbles(block + 4, out.codes);
}
void split_q5_0(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 22;
  out.scales[0] = clean_f16(read_u16(block));
  split_nibbles(block + 6, out.codes);
  add_fifth_bits(read_u32(block + 2), out.codes);
}
void split_q5_1(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 24;
  out.scales[0] = clean_f16(read_u16(block));
  out.mins[0] = clean_f16(read_u16(block + 2));
  split_nibbles(block + 8, out.codes);
  add_fifth_bits(read_u32(block + 4), out.codes);
}
void split_q8_0(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 34;
  out.scales[0] = clean_f16(read_u16(block));
  for (int i = 0; i < kBlock; ++i) out.codes[i] = static_cast<std::uint8_t>(block[2 + i] ^ 0x80u);  // + 128
}
void split_q8_min(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 36;
  out.scales[0] = clean_f16(read_u16(block));
  out.mins[0] = clean_f16(read_u16(block + 2));
  std::memcpy(out.codes, block + 4, kBlock);
}
void split_iq4_nl(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 18;
  out.scales[0] = clean_f16(read_u16(block));
  split_nibbles(block + 2, out.codes);
}
void split_mxfp4(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index * 17;
  const std::uint32_t e = block[0];
  const std::uint32_t half_scale = e < 2 ? 0x00200000u << e : (e - 1) << 23;
  out.scales[0] = static_cast<std::uint16_t>(half_scale >> 16);  // a power of two: exact in bf16
  split_nibbles(block + 1, out.codes);
}

// The two-level scales of K blocks are multiplied out and rounded to f16: 2^-11 of the scale, a quarter of
// bf16's step.
void split_q4_k_scales(Bytes block, int group, SplitBlock& out) {
  const Bytes packed = block + 4;
  int scale, min;
  if (group < 4) {
    scale = packed[group] & 63;
    min = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4);
    min = (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4);
  }
  out.scales[0] = float_to_f16(read_f16(block) * static_cast<float>(scale));
  out.mins[0] = float_to_f16(-read_f16(block + 2) * static_cast<float>(min));
}
void split_q4_k(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index / 8 * 144;
  const int group = index % 8;
  split_q4_k_scales(block, group, out);
  const Bytes low = block + 16 + group / 2 * 32;
  const int shift = group % 2 * 4;
  for (int i = 0; i < kBlock; ++i) out.codes[i] = (low[i] >> shift) & 15;
}
void split_q5_k(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index / 8 * 176;
  const int group = index % 8;
  split_q4_k_scales(block, group, out);
  const Bytes high = block + 16, low = block + 48 + group / 2 * 32;
  const int shift = group % 2 * 4;
  for (int i = 0; i < kBlock; ++i) {
    out.codes[i] = static_cast<std::uint8_t>(((low[i] >> shift) & 15) | (((high[i] >> group) & 1) << 4));
  }
}
void split_q6_k(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index / 8 * 210;
  const int half = index % 8 / 4, part = index % 4;
  const float d = read_f16(block + 208);
  for (int g = 0; g < 2; ++g) {
    const auto scale = static_cast<std::int8_t>(block[192 + index % 8 * 2 + g]);
    out.scales[g] = float_to_f16(d * static_cast<float>(scale));
  }
  const Bytes low = block + half * 64 + part % 2 * 32, high = block + 128 + half * 32;
  for (int i = 0; i < kBlock; ++i) {
    out.codes[i] =
        static_cast<std::uint8_t>(((low[i] >> (part / 2 * 4)) & 15) | (((high[i] >> (2 * part)) & 3) << 4));
  }
}
void split_q2_k(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index / 8 * 84;
  const float d = read_f16(block + 80), dmin = read_f16(block + 82);
  for (int g = 0; g < 2; ++g) {
    const int scales = block[index % 8 * 2 + g];
    out.scales[g] = float_to_f16(d * static_cast<float>(scales & 15));
    out.mins[g] = float_to_f16(-dmin * static_cast<float>(scales >> 4));
  }
  const Bytes low = block + 16 + index % 8 / 4 * 32;
  for (int i = 0; i < kBlock; ++i) out.codes[i] = (low[i] >> (index % 4 * 2)) & 3;
}
void split_q3_k(Bytes row, int index, SplitBlock& out) {
  const Bytes block = row + index / 8 * 110;
  const Bytes high = block, low = block + 32 + index % 8 / 4 * 32, scales = block + 96;
  const float d = read_f16(block + 108);
  for (int g = 0; g < 2; ++g) {
    const int group = index % 8 * 2 + g;
    const int scale_low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
    const int scale_high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    out.scales[g] = float_to_f16(d * static_cast<float>((scale_low | (scale_high << 4)) - 32));
  }
  for (int i = 0; i < kBlock; ++i) {
    out.codes[i] =
        static_cast<std::uint8_t>(((low[i] >> (index % 4 * 2)) & 3) | (((high[i] >> (index % 8)) & 1) << 2));
  }
}

}  // namespace

Split splitter(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return split_q4_0;
    case DType::kQ4_1:
      return split_q4_1;
    case DType::kQ5_0:
      return split_q5_0;
    case DType::kQ5_1:
      return split_q5_1;
    case DType::kQ8_0:
      return split_q8_0;
    case DType::kQ8Min:
      return split_q8_min;
    case DType::kQ2_K:
      return split_q2_k;
    case DType::kQ3_K:
      return split_q3_k;
    case DType::kQ4_K:
      return split_q4_k;
    case DType::kQ5_K:
      return split_q5_k;
    case DType::kQ6_K:
      return split_q6_k;
    case DType::kIQ4_NL:
      return split_iq4_nl;
    case DType::kMXFP4:
      return split_mxfp4;
    default:
      return nullptr;  // dense
  }
}

}  // namespace mlxs::cpu
