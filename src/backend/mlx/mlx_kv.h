// The KV tensors of one model in MLX arrays: per layer K [slots, kv_heads, key_dim] and V alike, where a slot
// is one token of one page (page · 16 + offset). Updates make new arrays that take over the old ones' memory,
// because nothing else refers to those when the step is evaluated. Engine thread only.
#pragma once

#include <mlx/mlx.h>

#include <vector>

#include "backend/ops.h"

namespace mlxs::mlx_backend {

namespace mx = mlx::core;

class MlxKvStore final : public KvStore {
 public:
  MlxKvStore(const KvSpec& spec,
             mx::Dtype type);  // throws kInvalidArgument (a type other than bf16), kOutOfMemory

  std::size_t bytes() const override;
  void append(int layer, const mx::array& slots, const mx::array& keys, const mx::array& values);
  const mx::array& keys(int layer) const { return keys_[static_cast<std::size_t>(layer)]; }
  const mx::array& values(int layer) const { return values_[static_cast<std::size_t>(layer)]; }
  void copy_page(PageId from, PageId to);
  void collect(std::vector<mx::array>& out) const;  // everything that a step must have evaluated

 private:
  std::vector<mx::array> keys_, values_;
};

}  // namespace mlxs::mlx_backend
