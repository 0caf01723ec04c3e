// Activations as the tensor cores take them (kernels.h, Operand), in kernels.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

// Eight consecutive columns, of which the first is a multiple of eight.
__device__ inline uint4 pack_operand(const float (&v)[8]) {
  const auto pair = [](float a, float b) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const unsigned*>(&two);
  };
  return {pair(v[0], v[4]), pair(v[1], v[5]), pair(v[2], v[6]), pair(v[3], v[7])};
}

}  // namespace mlxs::cuda
