// Finds the GPU and makes the CUDA backend for the registry, which so needs none of CUDA's headers. Works,
// and says why there is none, on machines without a GPU or driver.
#pragma once

#include <memory>
#include <string>

#include "backend/ops.h"

namespace mlxs::cuda {

// Why the backend cannot run on `device` of this machine; empty if it can.
std::string why_not(int device);
// threads: of the packing at load and of the sampler. Throws kInvalidArgument with why_not()'s reason.
std::unique_ptr<Backend> make_cuda_backend(int device, int threads, const MetalOptimizations& optimizations);

}  // namespace mlxs::cuda
