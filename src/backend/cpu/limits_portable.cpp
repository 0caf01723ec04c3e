#include <array>
#include <cstring>

#include "backend/cpu/limits_kernels.h"

namespace mlxs::cpu {

std::uint64_t read_stream_portable(const std::byte* data, std::size_t bytes) {
  std::array<std::uint64_t, 8> sums{};
  for (std::size_t i = 0; i < bytes; i += 64) {
    std::array<std::uint64_t, 8> line;
    std::memcpy(line.data(), data + i, 64);
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] ^= line[lane];
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t lane : sums) sum ^= lane;
  return sum;
}

double multiply_add_portable(std::int64_t rounds) {
  constexpr int kLanes = 64;
  std::array<float, kLanes> sums{};
  volatile float source = 0.5f;
  const float a = source, b = source;
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (float& sum : sums) sum = sum * a + b;
  }
  volatile float sink = 0;
  for (const float sum : sums) sink = sink + sum;
  return 2.0 * kLanes * static_cast<double>(rounds);
}

}  // namespace mlxs::cpu
