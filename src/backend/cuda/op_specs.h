// The op set's parameters as the kernels take them.
#pragma once

#include "backend/cuda/cuda_weight.h"
#include "backend/cuda/kernels.h"
#include "backend/ops.h"

namespace mlxs::cuda {

inline const CudaWeight& cuda_weight(const Weight& weight) { return static_cast<const CudaWeight&>(weight); }
inline const float* floats_of(const Weight* weight) {
  return weight != nullptr ? cuda_weight(*weight).floats() : nullptr;
}
inline float* floats_of(Tensor tensor) { return static_cast<float*>(tensor.handle); }

inline Norm norm_of(const NormSpec& spec) {
  return {.gain = floats_of(spec.gain),
          .bias = floats_of(spec.bias),
          .epsilon = spec.epsilon,
          .offset = spec.unit_offset ? 1.0f : 0.0f,
          .layer = spec.kind == NormSpec::Kind::kLayer};
}

inline Act act_of(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return Act::kNone;
    case Activation::kSilu:
      return Act::kSilu;
    case Activation::kGeluTanh:
      return Act::kGeluTanh;
    case Activation::kGelu:
      return Act::kGelu;
    case Activation::kSwigluClamped:
      return Act::kSwigluClamped;
  }
  return Act::kNone;
}

}  // namespace mlxs::cuda
