#include "backend/cuda/cuda_kv.h"

#include <fmt/format.h>

#include <atomic>

#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

std::uint64_t next_serial() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

CudaKvStore::CudaKvStore(const KvSpec& spec, cudaStream_t stream)
    : spec_(spec), stream_(stream), serial_(next_serial()) {
  const bool int8 = spec.type == DType::kI8;
  if (!int8 && spec.type != DType::kBF16) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the cuda backend keeps no KV cache of type {}", dtype_info(spec.type).name),
                "use bf16 or int8", "kv_cache_dtype");
  }
  const auto fits = [](int dim) { return dim >= 8 && dim <= 256 && dim % 8 == 0; };
  if (!fits(spec.key_dim) || !fits(spec.value_dim)) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("the cuda backend takes heads of 8 to 256 dims in steps of 8, not {} and {}",
                            spec.key_dim, spec.value_dim),
                "use --backend cpu");
  }
  const auto slots = static_cast<std::size_t>(kPageTokens) * static_cast<std::size_t>(spec.kv_heads);
  const std::size_t element = int8 ? 1 : 2;
  key_page_ = slots * static_cast<std::size_t>(spec.key_dim) * element;
  value_page_ = slots * static_cast<std::size_t>(spec.value_dim) * element;
  const auto pages = static_cast<std::size_t>(spec.num_pages) * static_cast<std::size_t>(spec.layers);
  keys_ = DeviceBuffer(pages * key_page_, "the KV cache");
  values_ = DeviceBuffer(pages * value_page_, "the KV cache");
  if (!int8) return;
  scale_page_ = slots * sizeof(float);
  key_scales_ = DeviceBuffer(pages * scale_page_, "the KV cache");
  value_scales_ = DeviceBuffer(pages * scale_page_, "the KV cache");
}

KvLayer CudaKvStore::layer(int index) const {
  const auto first = static_cast<std::size_t>(index) * static_cast<std::size_t>(spec_.num_pages);
  const auto scales = [&](const DeviceBuffer& buffer) {
    return scale_page_ == 0 ? nullptr : reinterpret_cast<float*>(buffer.data() + first * scale_page_);
  };
  return {.keys = keys_.data() + first * key_page_,
          .values = values_.data() + first * value_page_,
          .key_scales = scales(key_scales_),
          .value_scales = scales(value_scales_),
          .kv_heads = spec_.kv_heads,
          .key_dim = spec_.key_dim,
          .value_dim = spec_.value_dim};
}

void CudaKvStore::copy_page(PageId from, PageId to) {
  const auto copy = [&](const DeviceBuffer& buffer, std::size_t page) {
    const std::size_t pitch = page * static_cast<std::size_t>(spec_.num_pages);
    check(cudaMemcpy2DAsync(buffer.data() + static_cast<std::size_t>(to) * page, pitch,
                            buffer.data() + static_cast<std::size_t>(from) * page, pitch, page,
                            static_cast<std::size_t>(spec_.layers), cudaMemcpyDeviceToDevice, stream_),
          "copying a page");
  };
  copy(keys_, key_page_);
  copy(values_, value_page_);
  if (scale_page_ == 0) return;
  copy(key_scales_, scale_page_);
  copy(value_scales_, scale_page_);
}

}  // namespace mlxs::cuda
