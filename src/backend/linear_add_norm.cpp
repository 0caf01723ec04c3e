// A product and the norm behind it, for backends without a better way: one after the other.
#include "backend/ops.h"

namespace mlxs {

Tensor Backend::linear_add_norm(Tensor x, const Weight& weight, const Weight* bias, const NormSpec& norm,
                                Tensor residual, const NextSpec& next) {
  const Tensor out = linear(x, weight, {.bias = bias});
  const Tensor sum = add_norm(out, norm, residual, next);
  release(out);
  return sum;
}

}  // namespace mlxs
