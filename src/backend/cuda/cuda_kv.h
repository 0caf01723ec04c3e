// The KV tensors of one model on the GPU, bf16 or codes of 8 bits with their scales: per layer
// K [page][kv_head][16][key_dim] and V alike, so that a page of a layer is one piece of memory. Owned by the
// model's runner.
#pragma once

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/ops.h"

namespace mlxs::cuda {

class CudaKvStore final : public KvStore {
 public:
  // Throws kInvalidArgument on a shape or type that the kernels do not take, kOutOfMemory with the figures.
  CudaKvStore(const KvSpec& spec, cudaStream_t stream);

  std::size_t bytes() const override {
    return keys_.bytes() + values_.bytes() + key_scales_.bytes() + value_scales_.bytes();
  }
  KvLayer layer(int index) const;
  std::uint64_t serial() const { return serial_; }  // no other store ever had it
  void copy_page(PageId from, PageId to);

 private:
  KvSpec spec_;
  cudaStream_t stream_;
  std::uint64_t serial_;
  std::size_t key_page_ = 0, value_page_ = 0, scale_page_ = 0;  // bytes of a page of one layer
  DeviceBuffer keys_, values_, key_scales_, value_scales_;
};

}  // namespace mlxs::cuda
