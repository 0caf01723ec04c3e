// The packed layout of weights: every file format becomes one of these few, which the kernels of all
// instruction sets stream. Pure data. A change of the bytes must change kPackedLayout, the key under which
// packed weights are cached on disk.
//
// A weight [out, in] is cut into panels of 16 output rows ("lanes"), a panel into blocks of 32 inputs (in is
// padded with zeros). A panel is all its code blocks, then all its scale blocks, padded to 64 bytes; panels
// follow each other in output order.
//   codes of a block, k = 0 … 31; "vector v" is 16 lanes × 4 bytes for k = 4v … 4v+3, as VNNI and int8 tiles
//   want it:
//     4 bits   [4 pairs of vectors][lane][byte]: low nibble vector 2j, high nibble vector 2j+1
//     5 bits   as 4 bits, then the fifth bits: [8 vectors] of 64 bits, bit 4·lane + byte
//     6 bits   as 4 bits, then the upper two bits: [2][lane][byte], bits 2t, 2t+1 belong to vector 4h + t
//     8 bits   [8 vectors][lane][byte], stored with the upper bit flipped: signed, as int8 tiles want them
//     f32, f16 [32][lane];  bf16 [16 pairs of k][lane][2]: the B tile of tdpbf16ps
//   scales of a block: [32 / group][lane] scales, then, if has_min, [32 / group][lane] mins; 16-bit floats
// w = scale · (value(code) - zero) + min, where value is the code itself or a table's entry.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace mlxs::cpu {

inline constexpr std::string_view kPackedLayout = "cpu-panel16-3";
inline constexpr int kLanes = 16;  // output rows of a panel
inline constexpr int kBlock = 32;  // inputs of a block

enum class Codes : std::uint8_t { k4, k5, k6, k8, kTable, kF32, kF16, kBF16 };

// Named by code width, group and what the scale block holds.
enum class Packing : std::uint8_t {
  k4Min,       // Q4_1, Q4_K
  k4,          // Q4_0
  k5Min,       // Q5_1, Q5_K
  k5,          // Q5_0
  k8,          // Q8_0
  k4Min16,     // Q2_K: groups of 16
  k4Group16,   // Q3_K
  k6Group16,   // Q6_K
  kTableF16,   // IQ4_NL
  kTableBF16,  // MXFP4: its powers of two need bf16's range
  k8Min,       // MLX's 6 and 8 bits
  kF32,
  kF16,
  kBF16,
};
inline constexpr int kPackings = 14;
inline constexpr int kQuantizedPackings = 11;  // those before kF32

struct PackedFormat {
  Codes codes = Codes::k4;
  int group = kBlock;  // inputs that share a scale: 16 or 32
  bool has_min = false;
  bool bf16_scale = false;  // else f16
  int zero = 0;

  constexpr bool dense() const { return codes >= Codes::kF32; }
  constexpr std::size_t code_bytes() const {  // of a block
    switch (codes) {
      case Codes::k4:
      case Codes::kTable:
        return 256;
      case Codes::k5:
        return 256 + 64;
      case Codes::k6:
        return 256 + 128;
      case Codes::k8:
        return 512;
      case Codes::kF32:
        return 2048;
      case Codes::kF16:
      case Codes::kBF16:
        return 1024;
    }
    return 0;
  }
  constexpr std::size_t block_bytes() const { return code_bytes() + scale_bytes(); }
  constexpr std::size_t scale_bytes() const {
    return dense() ? 0 : static_cast<std::size_t>(kBlock / group * kLanes * 2 * (has_min ? 2 : 1));
  }
};

inline constexpr std::array<PackedFormat, kPackings> kPackedFormats{{
    {.codes = Codes::k4, .has_min = true},
    {.codes = Codes::k4, .zero = 8},
    {.codes = Codes::k5, .has_min = true},
    {.codes = Codes::k5, .zero = 16},
    {.codes = Codes::k8, .zero = 128},
    {.codes = Codes::k4, .group = 16, .has_min = true},
    {.codes = Codes::k4, .group = 16, .zero = 4},
    {.codes = Codes::k6, .group = 16, .zero = 32},
    {.codes = Codes::kTable, .zero = 128},
    {.codes = Codes::kTable, .bf16_scale = true, .zero = 128},
    {.codes = Codes::k8, .has_min = true},
    {.codes = Codes::kF32},
    {.codes = Codes::kF16},
    {.codes = Codes::kBF16},
}};

constexpr const PackedFormat& packed_format(Packing packing) {
  return kPackedFormats[static_cast<std::size_t>(packing)];
}

// The 16 values of a nonuniform 4-bit code, plus 128 so that they fit the unsigned operand of the dot
// instructions. IQ4_NL's levels; and FP4 E2M1 doubled (the scale holds the other half), where the sign is the
// code's upper bit.
alignas(16) inline constexpr std::array<std::uint8_t, 16> kIq4NlTable{1,   24,  45,  63,  79,  93,  106, 118,
                                                                      129, 141, 153, 166, 181, 197, 217, 241};
alignas(16) inline constexpr std::array<std::uint8_t, 16> kFp4Table{128, 129, 130, 131, 132, 134, 136, 140,
                                                                    128, 127, 126, 125, 124, 122, 120, 116};

constexpr const std::uint8_t* code_table(Packing packing) {
  return packing == Packing::kTableBF16 ? kFp4Table.data() : kIq4NlTable.data();
}

constexpr int blocks_of(std::int64_t columns) { return static_cast<int>((columns + kBlock - 1) / kBlock); }
constexpr std::int64_t panels_of(std::int64_t rows) { return (rows + kLanes - 1) / kLanes; }

constexpr std::size_t panel_bytes(Packing packing, std::int64_t columns) {
  const PackedFormat& format = packed_format(packing);
  const auto blocks = static_cast<std::size_t>(blocks_of(columns));
  return (blocks * format.block_bytes() + 63) / 64 * 64;
}

// One panel as the kernels read it. While they do, they fetch as many bytes from `ahead` into the L2 cache.
struct PanelView {
  const std::byte* codes = nullptr;
  const std::byte* scales = nullptr;
  int blocks = 0;
  const std::byte* ahead = nullptr;
};

}  // namespace mlxs::cpu
