#include "backend/mlx/mlx_kv.h"

#include <fmt/format.h>

#include <limits>

#include "mlxs/error.h"

namespace mlxs::mlx_backend {

MlxKvStore::MlxKvStore(const KvSpec& spec, mx::Dtype type) {
  if (spec.type != DType::kBF16) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the mlx backend keeps no KV cache of type {}", dtype_info(spec.type).name),
                "use bf16", "kv_cache_dtype");
  }
  const std::int64_t slots = std::int64_t{spec.num_pages} * kPageTokens;
  const std::int64_t row = std::int64_t{spec.kv_heads} * std::max(spec.key_dim, spec.value_dim);
  if (slots * row > std::numeric_limits<std::int32_t>::max()) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("KV cache: {} pages exceed what one MLX array holds", spec.num_pages),
                "lower kv_cache_bytes or max_running");
  }
  try {
    std::vector<mx::array> all;
    for (int layer = 0; layer < spec.layers; ++layer) {
      keys_.push_back(mx::zeros({static_cast<int>(slots), spec.kv_heads, spec.key_dim}, type));
      values_.push_back(mx::zeros({static_cast<int>(slots), spec.kv_heads, spec.value_dim}, type));
      // zeros() is a broadcast of one element; contiguous() gives it memory of its own, once, here.
      keys_.back() = mx::contiguous(keys_.back());
      values_.back() = mx::contiguous(values_.back());
    }
    collect(all);
    mx::eval(all);
  } catch (const std::exception& failure) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("KV cache of {} pages: {}", spec.num_pages, failure.what()),
                "lower kv_cache_bytes, the context length or max_running");
  }
}

std::size_t MlxKvStore::bytes() const {
  std::size_t total = 0;
  for (const mx::array& array : keys_) total += array.nbytes();
  for (const mx::array& array : values_) total += array.nbytes();
  return total;
}

void MlxKvStore::append(int layer, const mx::array& slots, const mx::array& keys, const mx::array& values) {
  const auto put = [&](mx::array& store, const mx::array& rows) {
    // scatter() wants an update of the indexed axis' size 1 behind the index's own.
    const mx::array updates = mx::expand_dims(mx::astype(rows, store.dtype()), 1);
    store = mx::scatter(store, slots, updates, 0);
  };
  put(keys_[static_cast<std::size_t>(layer)], keys);
  put(values_[static_cast<std::size_t>(layer)], values);
}

void MlxKvStore::copy_page(PageId from, PageId to) {
  std::vector<mx::array> all;
  const auto copy = [&](mx::array& store) {
    const int heads = store.shape(1), dim = store.shape(2);
    const auto begin = [](PageId page) { return mx::Shape{page * kPageTokens, 0, 0}; };
    const auto end = [&](PageId page) { return mx::Shape{(page + 1) * kPageTokens, heads, dim}; };
    store = mx::slice_update(store, mx::slice(store, begin(from), end(from)), begin(to), end(to));
  };
  for (mx::array& array : keys_) copy(array);
  for (mx::array& array : values_) copy(array);
  collect(all);
  mx::eval(all);
}

void MlxKvStore::collect(std::vector<mx::array>& out) const {
  out.insert(out.end(), keys_.begin(), keys_.end());
  out.insert(out.end(), values_.begin(), values_.end());
}

}  // namespace mlxs::mlx_backend
