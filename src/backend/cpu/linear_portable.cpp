// Any processor: a block of weights becomes floats in the L1 cache and is multiplied with all rows of the
// call. Plain loops over sixteen lanes that compilers turn into whatever vectors the target has.
#include <array>

#include "backend/cpu/float_bits.h"
#include "backend/cpu/linear_rows.h"

namespace mlxs::cpu {
namespace {

// The block as floats, w[k][lane].
template <Packing P>
inline void load_weights(const std::byte* codes, const std::byte* scales, float* __restrict w) {
  constexpr PackedFormat kFormat = packed_format(P);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes);
  if constexpr (kFormat.codes == Codes::kF32) {
    std::memcpy(w, codes, kFormat.code_bytes());
  } else if constexpr (kFormat.codes == Codes::kF16 || kFormat.codes == Codes::kBF16) {
    std::uint16_t bits[kBlock * kLanes];
    std::memcpy(bits, codes, sizeof(bits));
    for (int k = 0; k < kBlock; ++k) {
      for (int l = 0; l < kLanes; ++l) {
        w[k * kLanes + l] = kFormat.codes == Codes::kF16
                                ? f16_to_float(bits[k * kLanes + l])
                                : bf16_to_float(bits[(k / 2 * kLanes + l) * 2 + k % 2]);
      }
    }
  } else {
    constexpr int kGroups = kBlock / kFormat.group;
    std::uint16_t bits[kFormat.scale_bytes() / 2];
    std::memcpy(bits, scales, sizeof(bits));
    float scale[kGroups][kLanes], offset[kGroups][kLanes];
    for (int g = 0; g < kGroups; ++g) {
      for (int l = 0; l < kLanes; ++l) {
        const std::uint16_t s = bits[g * kLanes + l];
        scale[g][l] = kFormat.bf16_scale ? bf16_to_float(s) : f16_to_float(s);
        offset[g][l] = kFormat.has_min ? f16_to_float(bits[(kGroups + g) * kLanes + l]) : 0.0f;
      }
    }
    for (int k = 0; k < kBlock; ++k) {
      const int v = k / 4, byte = k % 4, g = k / kFormat.group;
      for (int l = 0; l < kLanes; ++l) {
        const int at = l * 4 + byte;
        int code;
        if constexpr (kFormat.codes == Codes::k8) {
          code = bytes[v * 64 + at];
        } else {
          code = (bytes[v / 2 * 64 + at] >> (v % 2 * 4)) & 15;
          if constexpr (kFormat.codes == Codes::kTable) code = code_table(P)[code];
          if constexpr (kFormat.codes == Codes::k5)
            code |= ((bytes[256 + v * 8 + at / 8] >> (at % 8)) & 1) << 4;
          if constexpr (kFormat.codes == Codes::k6)
            code |= ((bytes[256 + v / 4 * 64 + at] >> (v % 4 * 2)) & 3) << 4;
        }
        w[k * kLanes + l] = scale[g][l] * static_cast<float>(code - kFormat.zero) + offset[g][l];
      }
    }
  }
}

template <Packing P>
void dot_floats(const PanelView& panel, const float* x, std::size_t stride, int rows,
                float* __restrict sums) {
  constexpr PackedFormat kFormat = packed_format(P);
  alignas(64) float w[kBlock * kLanes];
  for (int i = 0; i < rows * kLanes; ++i) sums[i] = 0.0f;
  for (int b = 0; b < panel.blocks; ++b) {
    const auto index = static_cast<std::size_t>(b);
    load_weights<P>(panel.codes + index * kFormat.code_bytes(), panel.scales + index * kFormat.scale_bytes(),
                    w);
    for (int r = 0; r < rows; ++r) {
      const float* row = x + static_cast<std::size_t>(r) * stride + index * kBlock;
      float total[kLanes];
      for (int l = 0; l < kLanes; ++l) total[l] = sums[r * kLanes + l];
      for (int k = 0; k < kBlock; ++k) {
        for (int l = 0; l < kLanes; ++l) total[l] += w[k * kLanes + l] * row[k];
      }
      for (int l = 0; l < kLanes; ++l) sums[r * kLanes + l] = total[l];
    }
  }
}

constexpr LinearKernels kKernels{
    .name = "portable",
    .normalize = normalize_row,
    .quantize = nullptr,
    .dot = {},
    .dot_floats = {dot_floats<Packing::k4Min>, dot_floats<Packing::k4>, dot_floats<Packing::k5Min>,
                   dot_floats<Packing::k5>, dot_floats<Packing::k8>, dot_floats<Packing::k4Min16>,
                   dot_floats<Packing::k4Group16>, dot_floats<Packing::k6Group16>,
                   dot_floats<Packing::kTableF16>, dot_floats<Packing::kTableBF16>, dot_floats<Packing::kF32>,
                   dot_floats<Packing::kF16>, dot_floats<Packing::kBF16>},
    .finish = finish_panel,
};

}  // namespace

const LinearKernels& linear_portable() { return kKernels; }

}  // namespace mlxs::cpu
