#include <immintrin.h>

#include "backend/cpu/limits_kernels.h"

namespace mlxs::cpu {
namespace {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Two by two tiles of results, as the matmul kernels use them.
template <bool kInt8>
double run_tiles(std::int64_t rounds) {
  // In static storage: gcc's intrinsic tells the compiler of the first 8 bytes only, so stores to a local may
  // vanish.
  static const TileConfig kConfig;
  _tile_loadconfig(&kConfig);
  alignas(64) static const std::byte zeros[1024] = {};
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  for (std::int64_t i = 0; i < rounds; ++i) {
    if constexpr (kInt8) {
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
  return 2.0 * 4 * 16 * 16 * (kInt8 ? 64 : 32) * static_cast<double>(rounds);
}

}  // namespace

double tiles_bf16_amx(std::int64_t rounds) { return run_tiles<false>(rounds); }
double tiles_int8_amx(std::int64_t rounds) { return run_tiles<true>(rounds); }

}  // namespace mlxs::cpu
