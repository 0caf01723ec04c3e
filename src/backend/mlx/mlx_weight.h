// A weight as MLX holds it: MLX's own quantized layout wherever the file's codes fit it without loss, else
// 16-bit floats. Made and used by the engine thread; immutable. The constructor throws kModelLoad on a type
// that cannot be read.
#pragma once

#include <mlx/mlx.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/copy_queue.h"
#include "backend/ops.h"

namespace mlxs::mlx_backend {

namespace mx = mlx::core;

// Rows of one storage. Quantized: codes u32 [rows, columns·bits/32], scales and biases [rows, columns/group].
// Dense: codes holds the weights themselves, [rows, columns].
struct WeightPart {
  mx::array codes;
  std::optional<mx::array> scales, biases;
  int group = 0, bits = 0;
  std::string mode = "affine";  // or "mxfp4"

  bool quantized() const { return scales.has_value(); }
};

class MlxWeight final : public Weight {
 public:
  // compute: dtype of activations; scales and dense weights are kept in it (dense f32 vectors stay f32).
  // copies: takes the file's bytes into MLX's memory beside what is converted here; null: one after the
  // other.
  MlxWeight(std::span<const RawWeight> parts, WeightUse use, mx::Dtype compute, CopyQueue* copies = nullptr);

  mx::array multiply(const mx::array& x) const;   // [n, columns] → [n, rows]
  mx::array rows_at(const mx::array& ids) const;  // [n] of int32 → [n, columns], in the compute type
  const mx::array& vector() const { return parts_.front().codes; }  // kVector: f32 [columns]

  // The weights of a block's experts, all of one shape, side by side in the first of them; the others are
  // left empty. Kinds of storage that differ become 16-bit floats.
  static void join(std::span<MlxWeight* const> experts);
  // Of joined weights. x: [n, columns]; experts: [n], sorted or not → [n, rows].
  mx::array multiply_each(const mx::array& x, const mx::array& experts, bool sorted) const;
  mx::array vector_each(const mx::array& experts) const;  // kVector: f32 [n, columns]

 private:
  mx::array dense() const;  // [rows, columns], in the compute type

  mx::Dtype compute_;
  std::vector<WeightPart> parts_;
};

}  // namespace mlxs::mlx_backend
