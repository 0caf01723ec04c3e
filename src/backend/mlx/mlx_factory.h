// Makes the MLX backend for the registry, which so needs none of MLX's headers.
#pragma once

#include <memory>

#include "backend/ops.h"

namespace mlxs::mlx_backend {

// threads: of the sampler.
std::unique_ptr<Backend> make_mlx_backend(int threads, const MetalOptimizations& optimizations);

}  // namespace mlxs::mlx_backend
