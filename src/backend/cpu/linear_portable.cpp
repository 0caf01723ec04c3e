// Any processor: a block of weights becomes floats in the L1 cache and is multiplied with all rows of the
// call. Plain loops over sixteen lanes that compilers turn into whatever vectors the target has.
#include "backend/cpu/float_bits.h"
#include "backend/cpu/linear_rows.h"

namespace mlxs::cpu {
namespace {

MLXS_INLINE void load_ints(const std::byte* from, Ints& v) { std::memcpy(&v, from, sizeof(v)); }

// Byte `byte` of each lane of vector v of the block's codes.
template <Codes kCodes>
MLXS_INLINE void load_code(const std::byte* block, int v, int byte, Ints& code) {
  if constexpr (kCodes == Codes::k8) {
    load_ints(block + v * 64, code);
    code = ((code >> (8 * byte)) & 255) ^ 128;
    return;
  }
  load_ints(block + v / 2 * 64, code);
  code = (code >> (8 * byte + v % 2 * 4)) & 15;
  if constexpr (kCodes == Codes::k5) {
    std::uint64_t bits;
    std::memcpy(&bits, block + 256 + v * 8, 8);
    for (int l = 0; l < kLanes; ++l) code[l] |= static_cast<std::int32_t>((bits >> (4 * l + byte)) & 1u) << 4;
  }
  if constexpr (kCodes == Codes::k6) {
    Ints upper;
    load_ints(block + 256 + v / 4 * 64, upper);
    code |= ((upper >> (8 * byte + v % 4 * 2)) & 3) << 4;
  }
}

template <Packing P>
MLXS_INLINE void load_scale(const std::byte* block, int index, Floats& scale) {
  std::uint16_t bits[kLanes];
  std::memcpy(bits, block + 32 * index, sizeof(bits));
  for (int l = 0; l < kLanes; ++l) {
    scale[l] = packed_format(P).bf16_scale ? bf16_to_float(bits[l]) : f16_to_float(bits[l]);
  }
}

// The block as floats, w[k] of all lanes.
template <Packing P>
MLXS_INLINE void load_weights(const std::byte* codes, const std::byte* scales, Floats* w) {
  constexpr PackedFormat kFormat = packed_format(P);
  if constexpr (kFormat.codes == Codes::kF32) {
    std::memcpy(w, codes, kFormat.code_bytes());
  } else if constexpr (kFormat.codes == Codes::kF16) {
    for (int k = 0; k < kBlock; ++k) load_scale<P>(codes, k, w[k]);
  } else if constexpr (kFormat.codes == Codes::kBF16) {
    for (int pair = 0; pair < kBlock / 2; ++pair) {
      Ints both;
      load_ints(codes + pair * 64, both);
      w[2 * pair] = __builtin_bit_cast(Floats, both << 16);
      w[2 * pair + 1] = __builtin_bit_cast(Floats, both & static_cast<std::int32_t>(0xffff0000u));
    }
  } else {
    constexpr int kGroups = kBlock / kFormat.group;
    for (int g = 0; g < kGroups; ++g) {
      Floats scale, min{};
      load_scale<P>(scales, g, scale);
      if constexpr (kFormat.has_min) load_scale<P>(scales, kGroups + g, min);
      for (int k = g * kFormat.group; k < (g + 1) * kFormat.group; ++k) {
        Ints code;
        load_code<kFormat.codes>(codes, k / 4, k % 4, code);
        if constexpr (kFormat.codes == Codes::kTable) {
          for (int l = 0; l < kLanes; ++l) code[l] = code_table(P)[code[l]];
        }
        w[k] = scale * __builtin_convertvector(code - kFormat.zero, Floats) + min;
      }
    }
  }
}

template <Packing P>
void dot_floats(const PanelView& panel, const float* x, std::size_t stride, int rows, float* sums) {
  constexpr PackedFormat kFormat = packed_format(P);
  Floats w[kBlock];
  std::memset(sums, 0, static_cast<std::size_t>(rows * kLanes) * sizeof(float));
  for (int b = 0; b < panel.blocks; ++b) {
    const auto index = static_cast<std::size_t>(b);
    load_weights<P>(panel.codes + index * kFormat.code_bytes(), panel.scales + index * kFormat.scale_bytes(),
                    w);
    for (int r = 0; r < rows; ++r) {
      const float* row = x + static_cast<std::size_t>(r) * stride + index * kBlock;
      Floats total;
      load_lanes(sums + r * kLanes, kLanes, total);
      for (int k = 0; k < kBlock; ++k) total += w[k] * row[k];
      std::memcpy(sums + r * kLanes, &total, sizeof(total));
    }
  }
}

constexpr LinearKernels kKernels{
    .name = "portable",
    .rows_at_once = kMostDotRows,
    .normalize = normalize_row,
    .quantize = nullptr,
    .dot = {},
    .dot_floats = {dot_floats<Packing::k4Min>, dot_floats<Packing::k4>, dot_floats<Packing::k5Min>,
                   dot_floats<Packing::k5>, dot_floats<Packing::k8>, dot_floats<Packing::k4Min16>,
                   dot_floats<Packing::k4Group16>, dot_floats<Packing::k6Group16>,
                   dot_floats<Packing::kTableF16>, dot_floats<Packing::kTableBF16>,
                   dot_floats<Packing::k8Min>, dot_floats<Packing::kF32>, dot_floats<Packing::kF16>,
                   dot_floats<Packing::kBF16>},
    .finish = finish_panel,
};

}  // namespace

const LinearKernels& linear_portable() { return kKernels; }

}  // namespace mlxs::cpu
