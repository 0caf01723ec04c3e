// The linear op alone, on the shapes of one transformer layer: what `mlx-serving bench kernels` runs and
// prints. Goes through the op set, so that every backend is measured by the same code. Throws Error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"

namespace mlxs::cli {

struct KernelBench {
  std::string format = "Q4_1";  // of the layers' weights, a DType's name; the head is Q8_0
  std::vector<int> rows = {1, 4, 8, 16, 32, 512};
  double seconds = 0.15;  // of each measurement
};

struct KernelFigure {
  std::string name;  // "qkv", "gate_up", …
  std::int64_t outputs = 0, inputs = 0;
  int rows = 0;
  double microseconds = 0;      // of one call
  double gb_per_second = 0;     // packed weights, read once a call
  double gflop_per_second = 0;  // two a weight and row
};

// The weight formats that `format` may name.
std::vector<std::string> kernel_formats();

// SmolLM2-135M's shapes. Weights are random, and rotate through 256 MB so that they come from memory.
std::vector<KernelFigure> run_kernels(Backend& backend, const KernelBench& what);

}  // namespace mlxs::cli
