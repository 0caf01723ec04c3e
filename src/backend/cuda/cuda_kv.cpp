#include "backend/cuda/cuda_kv.h"

#include <fmt/format.h>

#include <algorithm>
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
  const auto fits = [](int dim, int most) { return dim >= 8 && dim <= most && dim % 8 == 0; };
  if (!fits(spec.key_dim, 576) || !fits(spec.value_dim, 512)) {
    throw Error(
        ErrorCode::kModelLoad,
        fmt::format(
            "the cuda backend takes keys of 8 to 576 dims and values of 8 to 512, in steps of 8, not {} "
            "and {}",
            spec.key_dim, spec.value_dim),
        "use --backend cpu");
  }
  const auto windowed = static_cast<std::size_t>(std::ranges::count(spec.windowed, true));
  if ((!spec.windowed.empty() && spec.windowed.size() != static_cast<std::size_t>(spec.layers)) ||
      (spec.num_window_pages > 0) != (windowed > 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("KV cache: {} of {} layers have {} pages of their own", windowed, spec.layers,
                            spec.num_window_pages),
                "the model's configuration is damaged or not supported");
  }
  const auto slots = static_cast<std::size_t>(kPageTokens) * static_cast<std::size_t>(spec.kv_heads);
  const std::size_t element = int8 ? 1 : 2;
  key_page_ = slots * static_cast<std::size_t>(spec.key_dim) * element;
  value_page_ = slots * static_cast<std::size_t>(spec.value_dim) * element;
  if (int8) scale_page_ = slots * sizeof(float);
  int device = 0, most_pitch = 0;
  check(cudaGetDevice(&device), "the KV cache");
  check(cudaDeviceGetAttribute(&most_pitch, cudaDevAttrMaxPitch, device), "the KV cache");
  most_pitch_ = static_cast<std::size_t>(most_pitch);
  std::size_t next[2] = {};
  for (int layer = 0; layer < spec.layers; ++layer) own_.push_back(next[this->windowed(layer) ? 1 : 0]++);
  all_ = make_pool(next[0], spec.num_pages);
  windowed_ = make_pool(next[1], spec.num_window_pages);
}

CudaKvStore::Pool CudaKvStore::make_pool(std::size_t layers, std::int32_t pages) const {
  Pool pool{.layers = layers, .pages = static_cast<std::size_t>(pages)};
  const std::size_t all = layers * pool.pages;
  if (all == 0) return pool;
  pool.keys = DeviceBuffer(all * key_page_, "the KV cache");
  pool.values = DeviceBuffer(all * value_page_, "the KV cache");
  if (scale_page_ == 0) return pool;
  pool.key_scales = DeviceBuffer(all * scale_page_, "the KV cache");
  pool.value_scales = DeviceBuffer(all * scale_page_, "the KV cache");
  return pool;
}

KvLayer CudaKvStore::layer(int index) const {
  const Pool& pool = windowed(index) ? windowed_ : all_;
  const std::size_t first = own_[static_cast<std::size_t>(index)] * pool.pages;
  const auto scales = [&](const DeviceBuffer& buffer) {
    return scale_page_ == 0 ? nullptr : reinterpret_cast<float*>(buffer.data() + first * scale_page_);
  };
  return {.keys = pool.keys.data() + first * key_page_,
          .values = pool.values.data() + first * value_page_,
          .key_scales = scales(pool.key_scales),
          .value_scales = scales(pool.value_scales),
          .kv_heads = spec_.kv_heads,
          .key_dim = spec_.key_dim,
          .value_dim = spec_.value_dim,
          .pages = static_cast<int>(pool.pages)};
}

template <class Each>
void CudaKvStore::for_page(const Pool& pool, PageId page, const Each& each) const {
  const auto of = [&](const DeviceBuffer& buffer, std::size_t bytes) {
    if (bytes > 0 && pool.layers > 0)
      each(buffer.data() + static_cast<std::size_t>(page) * bytes, bytes * pool.pages, bytes);
  };
  of(pool.keys, key_page_);
  of(pool.values, value_page_);
  of(pool.key_scales, scale_page_);
  of(pool.value_scales, scale_page_);
}

void CudaKvStore::copy_layers(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t bytes, std::size_t layers, cudaMemcpyKind kind) const {
  if (std::max(to_pitch, from_pitch) <= most_pitch_) {
    check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, layers, kind, stream_), "copying a page");
    return;
  }
  for (std::size_t i = 0; i < layers; ++i) {
    check(cudaMemcpyAsync(static_cast<std::byte*>(to) + i * to_pitch,
                          static_cast<const std::byte*>(from) + i * from_pitch, bytes, kind, stream_),
          "copying a page");
  }
}

void CudaKvStore::copy(const Pool& pool, PageId from, PageId to) {
  for_page(pool, from, [&](std::byte* source, std::size_t pitch, std::size_t bytes) {
    copy_layers(source + (static_cast<std::ptrdiff_t>(to) - from) * static_cast<std::ptrdiff_t>(bytes), pitch,
                source, pitch, bytes, pool.layers, cudaMemcpyDeviceToDevice);
  });
}

void CudaKvStore::read_page(PageId page, PageId window, std::span<std::byte> out) const {
  std::byte* to = out.data();
  for (const Pool* pool : {&all_, &windowed_}) {
    if (pool == &windowed_ && window < 0) break;
    for_page(*pool, pool == &all_ ? page : window,
             [&](const std::byte* source, std::size_t pitch, std::size_t bytes) {
               copy_layers(to, bytes, source, pitch, bytes, pool->layers, cudaMemcpyDeviceToHost);
               to += bytes * pool->layers;
             });
  }
  check(cudaStreamSynchronize(stream_), "reading a page");
}

void CudaKvStore::write_page(PageId page, PageId window, std::span<const std::byte> bytes_of) {
  const std::byte* from = bytes_of.data();
  for (const Pool* pool : {&all_, &windowed_}) {
    if (pool == &windowed_ && window < 0) break;
    for_page(*pool, pool == &all_ ? page : window, [&](std::byte* to, std::size_t pitch, std::size_t bytes) {
      copy_layers(to, pitch, from, bytes, bytes, pool->layers, cudaMemcpyHostToDevice);
      from += bytes * pool->layers;
    });
  }
  check(cudaStreamSynchronize(stream_), "writing a page");
}

}  // namespace mlxs::cuda
