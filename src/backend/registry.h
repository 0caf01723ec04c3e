// Which backend runs: picks and makes one by name. The only place that knows them all.
// Thread-safe; fails with kInvalidArgument that lists the names this binary was built with.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "backend/ops.h"

namespace mlxs {

struct BackendOptions {
  int threads = 0;  // compute threads of the CPU backend; 0: one a physical core, at most 16
  int device = 0;   // which GPU, of the CUDA backend
  MetalOptimizations optimizations = {};
};

// name: "auto", "cpu", "mlx", "cuda". "auto" takes the best that this machine can run.
std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options = {});
std::vector<std::string_view> backend_names();

// Threads of the host that a step of this backend keeps busy.
int host_threads(const Backend& backend, const BackendOptions& options);

}  // namespace mlxs
