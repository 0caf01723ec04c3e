// What this machine can do at most, measured: the yardstick that `mlx-serving bench` puts beside every
// figure. Takes about a second; allocates 1 GiB. Own threads; call it while nothing else runs.
#pragma once

namespace mlxs {

struct MachineLimits {
  int threads = 0;
  double read_gb_per_second = 0;     // streaming reads of a buffer much larger than the caches, all threads
  double f32_gflop_per_second = 0;   // fused multiply-add in the widest vectors, all threads
  double bf16_gflop_per_second = 0;  // AMX tiles; 0 without AMX
  double int8_gop_per_second = 0;    // AMX tiles; 0 without AMX
};

MachineLimits measure_limits(int threads);
double measure_read_bandwidth(int threads);  // read_gb_per_second alone

}  // namespace mlxs
