// Products of bf16 matrices by cuBLASLt, NVIDIA's library, where it is installed: opened at run time, so that
// the program needs neither it nor its headers. Owned by the backend; its thread makes every call.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

namespace mlxs::cuda {

// y[row][i] = Σ_k x[row][k] · w[i][k] + added[row][i], sums in f32.
struct BlasProduct {
  const void* w = nullptr;  // bf16 [outputs][columns]
  const void* x = nullptr;  // bf16 [rows][columns]
  int rows = 0, outputs = 0, columns = 0;
  const float* added = nullptr;  // as y, or null; of f32 alone
  void* y = nullptr;             // [rows], y_columns apart
  int y_columns = 0;
  bool y_bf16 = false;  // else f32
};

class Blas {
 public:
  // nullptr, and `obstacle` says why in a few words: prompts are then multiplied by kernels of our own.
  static std::unique_ptr<Blas> load(std::string& obstacle);
  virtual ~Blas() = default;
  virtual std::string version() const = 0;
  // Rows from which a product pays, if the weights are bf16 already, and if they are codes.
  virtual int least_rows(bool bf16) const = 0;
  // Not within a capture: the first product of a shape may be measured. Throws Error (kInternal) if the
  // library refuses.
  virtual void multiply(cudaStream_t stream, const BlasProduct& product) = 0;
};

}  // namespace mlxs::cuda
