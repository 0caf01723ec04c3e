// Packed weights as a plain bf16 matrix, columns in the order of a wide operand, for cuBLASLt: a warp takes a
// unit, by way of shared memory, so that whole lines are written. The values are those that wide()
// multiplies.
#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kWarps = 8, kStride = 72;  // elements: rows start in different banks

template <Codes kCodes, Scaling kScaling>
__global__ __launch_bounds__(kWarps * 32) void unpack_kernel(const __grid_constant__ Rows w, int first_tile,
                                                             __nv_bfloat16* to) {
  __shared__ __align__(16) __nv_bfloat16 rows[kWarps][16][kStride];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int unit = static_cast<int>(blockIdx.x) * kWarps + warp, units = w.padded / 64;
  const auto tile = static_cast<size_t>(blockIdx.y);
  if (unit >= units) return;
  const size_t from = (first_tile + tile) * units + unit;
  UnitCodes<kCodes> codes;
  UnitScales<kScaling> scales;
  codes.load(static_cast<const char*>(w.codes) + from * kUnitBytes<kCodes> + lane * 16);
  scales.load(static_cast<const char*>(w.scales) + from * UnitScales<kScaling>::kBytes +
              UnitScales<kScaling>::lane_offset(lane));
  unsigned left[4][4];
  unpack(codes, scales, left);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      *reinterpret_cast<unsigned*>(&rows[warp][g + i % 2 * 8][step * 16 + i / 2 * 8 + 2 * t]) = left[step][i];
  }
  __syncwarp();
  await();  // the product before may be reading the matrix; weights are older
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 8 + 4 * i, column = lane % 8 * 8;
    *reinterpret_cast<uint4*>(to + (tile * 16 + row) * w.padded + unit * 64 + column) =
        *reinterpret_cast<const uint4*>(&rows[warp][row][column]);
  }
}

template <Codes kCodes, Scaling kScaling>
void start(cudaStream_t stream, const Rows& w, int first_tile, int tiles, void* to) {
  launch_early(unpack_kernel<kCodes, kScaling>, dim3((w.padded / 64 + kWarps - 1) / kWarps, tiles),
               32 * kWarps, 0, stream, w, first_tile, static_cast<__nv_bfloat16*>(to));
}

template <Codes kCodes>
void start(cudaStream_t stream, const Rows& w, int first_tile, int tiles, void* to) {
  if (w.group_shift >= 6) return start<kCodes, Scaling::kUnits>(stream, w, first_tile, tiles, to);
  if (w.group_shift == 5) return start<kCodes, Scaling::kHalves>(stream, w, first_tile, tiles, to);
  start<kCodes, Scaling::kCodes>(stream, w, first_tile, tiles, to);
}

}  // namespace

void unpack_tiles(cudaStream_t stream, const Rows& w, int first_tile, int tiles, void* to) {
  switch (w.type) {
    case Codes::k4:
      return start<Codes::k4>(stream, w, first_tile, tiles, to);
    case Codes::k8:
      return start<Codes::k8>(stream, w, first_tile, tiles, to);
    case Codes::kF8:
      return start<Codes::kF8, Scaling::kFloats>(stream, w, first_tile, tiles, to);
    case Codes::kBF16:
      return start<Codes::kBF16, Scaling::kNone>(stream, w, first_tile, tiles, to);
  }
}

}  // namespace mlxs::cuda
