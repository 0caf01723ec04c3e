// The KV tensors of one model on the GPU, bf16 or codes of 8 bits with their scales: per layer
// K [page][kv_head][16][key_dim] and V alike, so that a page of a layer is one piece of memory; windowed
// layers may have pages of their own. Owned by the model's runner.
#pragma once

#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/ops.h"

namespace mlxs::cuda {

class CudaKvStore final : public KvStore {
 public:
  // Throws kInvalidArgument on a shape or type that the kernels do not take, kOutOfMemory with the figures.
  CudaKvStore(const KvSpec& spec, cudaStream_t stream);

  std::size_t bytes() const override { return all_.bytes() + windowed_.bytes(); }
  KvLayer layer(int index) const;
  // Of a layer whose pages are SequenceSpan::window_pages.
  bool windowed(int layer) const {
    return !spec_.windowed.empty() && spec_.windowed[static_cast<std::size_t>(layer)];
  }
  std::uint64_t serial() const { return serial_; }  // no other store ever had it
  void copy_page(PageId from, PageId to) { copy(all_, from, to); }
  void copy_window_page(PageId from, PageId to) { copy(windowed_, from, to); }
  // Between steps; they wait for the stream.
  std::size_t page_bytes() const override {
    return static_cast<std::size_t>(spec_.layers) * (key_page_ + value_page_ + 2 * scale_page_);
  }
  void read_page(PageId page, PageId window, std::span<std::byte> out) const override;
  void write_page(PageId page, PageId window, std::span<const std::byte> bytes) override;

 private:
  // Layers whose pages have the same numbers, one after the other.
  struct Pool {
    std::size_t layers = 0, pages = 0;
    DeviceBuffer keys, values, key_scales, value_scales;
    std::size_t bytes() const {
      return keys.bytes() + values.bytes() + key_scales.bytes() + value_scales.bytes();
    }
  };
  Pool make_pool(std::size_t layers, std::int32_t pages) const;
  void copy(const Pool& pool, PageId from, PageId to);
  // Calls each(the page's bytes in a layer's buffer, from layer to layer, bytes of one) for K, V and scales.
  template <class Each>
  void for_page(const Pool& pool, PageId page, const Each& each) const;
  // A page's bytes of all of a pool's layers, so far apart here and there.
  void copy_layers(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                   std::size_t bytes, std::size_t layers, cudaMemcpyKind kind) const;

  KvSpec spec_;
  cudaStream_t stream_;
  std::uint64_t serial_;
  std::size_t most_pitch_ = 0;  // of a copy of several layers, 2 GiB; a layer's pages may be more
  std::size_t key_page_ = 0, value_page_ = 0, scale_page_ = 0;  // bytes of a page of one layer
  Pool all_, windowed_;                                         // windowed_: of those with pages of their own
  std::vector<std::size_t> own_;                                // of a layer: its place in its pool
};

}  // namespace mlxs::cuda
