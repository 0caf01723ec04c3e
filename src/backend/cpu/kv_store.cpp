#include "backend/cpu/kv_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

std::string mebibytes(std::size_t bytes) { return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB"; }

void require(bool ok, const char* what, std::int64_t value) {
  if (!ok) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("KV cache: ") + what + " is " + std::to_string(value),
                "the model's configuration is damaged or not supported");
  }
}

std::size_t physical_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page) : 0;
}

}  // namespace

KvLayout make_kv_layout(const KvSpec& spec) {
  require(spec.key_dim > 0 && spec.key_dim <= 1024, "key_dim", spec.key_dim);
  require(spec.value_dim > 0 && spec.value_dim <= 1024, "value_dim", spec.value_dim);
  if (spec.type != DType::kBF16 && spec.type != DType::kI8) {
    throw Error(ErrorCode::kInvalidArgument,
                "KV cache: type " + std::string(dtype_info(spec.type).name) + " is not supported on the CPU",
                "use bf16 or int8", "kv_cache_type");
  }
  KvLayout layout;
  layout.int8 = spec.type == DType::kI8;
  layout.key_dim = spec.key_dim;
  layout.key_padded = round_up(spec.key_dim, 32);
  layout.value_dim = spec.value_dim;
  layout.value_padded = round_up(spec.value_dim, 16);
  const std::size_t element = layout.int8 ? 1 : 2;
  layout.value_offset = static_cast<std::size_t>(layout.key_padded * kPageTokens) * element;
  layout.scale_offset =
      layout.value_offset + static_cast<std::size_t>(layout.value_padded * kPageTokens) * element;
  layout.block_bytes = layout.scale_offset + (layout.int8 ? 2 * kPageTokens * sizeof(float) : 0);
  return layout;
}

CpuKvStore::CpuKvStore(const KvSpec& spec) : spec_(spec), layout_(make_kv_layout(spec)) {
  require(spec.layers > 0, "layers", spec.layers);
  require(spec.kv_heads > 0, "kv_heads", spec.kv_heads);
  require(spec.num_pages > 0, "num_pages", spec.num_pages);
  const auto windowed = static_cast<std::size_t>(std::ranges::count(spec.windowed, true));
  require(spec.windowed.empty() || spec.windowed.size() == static_cast<std::size_t>(spec.layers),
          "the number of layers with or without a window", static_cast<std::int64_t>(spec.windowed.size()));
  require(spec.num_window_pages >= 0 && (spec.num_window_pages > 0) == (windowed > 0), "num_window_pages",
          spec.num_window_pages);
  const std::size_t layer_bytes = layout_.block_bytes * static_cast<std::size_t>(spec.kv_heads);
  pages_ = {nullptr, layer_bytes * (static_cast<std::size_t>(spec.layers) - windowed),
            static_cast<std::size_t>(spec.num_pages)};
  window_pages_ = {nullptr, layer_bytes * windowed, static_cast<std::size_t>(spec.num_window_pages)};
  const std::size_t memory = physical_memory();
  const auto addressable = [](const Pages& pages) {
    return pages.page_bytes <=
           std::numeric_limits<std::size_t>::max() / 4 / std::max<std::size_t>(pages.count, 1);
  };
  const bool fits = addressable(pages_) && addressable(window_pages_);
  mapping_bytes_ = fits ? bytes() + kHugePage : 0;
  if (!fits || (memory > 0 && bytes() > memory)) {
    throw Error(ErrorCode::kOutOfMemory,
                "KV cache of " + std::to_string(spec.num_pages) + " pages × " + std::to_string(page_bytes()) +
                    " bytes exceeds this machine's " + mebibytes(memory),
                "lower kv_cache_bytes, the context length or max_running");
  }
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;  // pages cost memory only once written
#endif
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw Error(ErrorCode::kOutOfMemory,
                "KV cache: the system refused " + mebibytes(mapping_bytes_) + ": " + std::strerror(errno),
                "lower kv_cache_bytes, the context length or max_running");
  }
  const std::size_t beyond = reinterpret_cast<std::uintptr_t>(mapping_) % kHugePage;
  pages_.base = static_cast<std::byte*>(mapping_) + (beyond == 0 ? 0 : kHugePage - beyond);
  window_pages_.base = pages_.base + pages_.bytes();
#ifdef MADV_HUGEPAGE
  madvise(pages_.base, bytes(), MADV_HUGEPAGE);  // advice: 4 KiB pages work as well, with more TLB misses
#endif
  std::byte *next = pages_.base, *next_window = window_pages_.base;
  for (int layer = 0; layer < spec.layers; ++layer) {
    std::byte*& at = this->windowed(layer) ? next_window : next;
    first_blocks_.push_back(at);
    at += layer_bytes;
  }
}

CpuKvStore::~CpuKvStore() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void CpuKvStore::Pages::copy(PageId from, PageId to) const {
  if (from != to) std::memcpy(at(to), at(from), page_bytes);
}

void CpuKvStore::read_page(PageId page, PageId window, std::span<std::byte> out) const {
  std::memcpy(out.data(), pages_.at(page), pages_.page_bytes);
  if (window >= 0)
    std::memcpy(out.data() + pages_.page_bytes, window_pages_.at(window), window_pages_.page_bytes);
}

void CpuKvStore::write_page(PageId page, PageId window, std::span<const std::byte> bytes) {
  std::memcpy(pages_.at(page), bytes.data(), pages_.page_bytes);
  if (window >= 0)
    std::memcpy(window_pages_.at(window), bytes.data() + pages_.page_bytes, window_pages_.page_bytes);
}

}  // namespace mlxs::cpu
