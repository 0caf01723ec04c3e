// Finds the GPU and makes the CUDA backend for the registry, which so needs none of CUDA's headers. Works,
// and says why there is none, on machines without a GPU or driver.
#pragma once

#include <memory>
#include <string>

#include "backend/ops.h"

namespace mlxs::cuda {

// Why the backend cannot run on a device, and what would help; both empty if it can.
struct Obstacle {
  std::string reason, remedy;
};
// Of `device` of this machine: driver, number, compute capability and this build's kernels.
Obstacle obstacle(int device);
// threads: of the packing at load and of the sampler. Throws kInvalidArgument with what obstacle() says.
std::unique_ptr<Backend> make_cuda_backend(int device, int threads, const MetalOptimizations& optimizations);

}  // namespace mlxs::cuda
