// The KV tensors of one model on the CPU: one reservation of address space, page after page, touched only
// where written. A page is [layers][kv heads] blocks, so copying a page is one memcpy and few pages stay few
// bytes of memory. Behind the pages lie those of the windowed layers, if these have their own. Owned by the
// model's runner; blocks of different (page, layer, head) may be written by different threads. The
// constructor throws kInvalidArgument on a shape or type it cannot hold, kOutOfMemory with the figures.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backend/ops.h"

namespace mlxs::cpu {

// One block: K, then V, then (int8 only) the scales of 16 keys and 16 values, f32. Dims are padded with
// zeros.
//   bf16: K [key_padded / 2][16 tokens][2 dims], V [8 token pairs][value_padded][2 tokens]
//   int8: K [key_padded / 4][16 tokens][4 dims], V [4 token quads][value_padded][4 tokens]
// Both are what the dot instructions want: 2 (bf16) or 4 (int8) products a 32-bit lane, and a 1 KiB AMX tile
// of 32 dims.
struct KvLayout {
  bool int8 = false;
  int key_dim = 0, key_padded = 0;      // padded to 32
  int value_dim = 0, value_padded = 0;  // padded to 16
  std::size_t value_offset = 0;         // bytes from the block's start
  std::size_t scale_offset = 0;         // int8: float key_scale[16], value_scale[16]
  std::size_t block_bytes = 0;          // a multiple of 64
};

KvLayout make_kv_layout(const KvSpec& spec);

class CpuKvStore final : public KvStore {
 public:
  explicit CpuKvStore(const KvSpec& spec);
  ~CpuKvStore() override;
  CpuKvStore(const CpuKvStore&) = delete;
  CpuKvStore& operator=(const CpuKvStore&) = delete;

  std::size_t bytes() const override { return pages_.bytes() + window_pages_.bytes(); }
  const KvSpec& spec() const { return spec_; }
  const KvLayout& layout() const { return layout_; }
  std::size_t page_bytes() const override { return pages_.page_bytes + window_pages_.page_bytes; }
  void read_page(PageId page, PageId window, std::span<std::byte> out) const override;
  void write_page(PageId page, PageId window, std::span<const std::byte> bytes) override;
  bool windowed(int layer) const {
    return !spec_.windowed.empty() && spec_.windowed[static_cast<std::size_t>(layer)];
  }
  // Block of (layer, head) in page 0; that of page p lies p · stride(layer) further. 64-byte aligned.
  std::byte* blocks(int layer, int head) const {
    return first_blocks_[static_cast<std::size_t>(layer)] +
           static_cast<std::size_t>(head) * layout_.block_bytes;
  }
  std::size_t stride(int layer) const { return (windowed(layer) ? window_pages_ : pages_).page_bytes; }
  void copy_page(PageId from, PageId to) { pages_.copy(from, to); }
  void copy_window_page(PageId from, PageId to) { window_pages_.copy(from, to); }

 private:
  struct Pages {
    std::byte* base = nullptr;
    std::size_t page_bytes = 0, count = 0;

    std::size_t bytes() const { return page_bytes * count; }
    std::byte* at(PageId page) const { return base + static_cast<std::size_t>(page) * page_bytes; }
    void copy(PageId from, PageId to) const;
  };

  KvSpec spec_;
  KvLayout layout_;
  Pages pages_, window_pages_;            // the first aligned to a huge page
  std::vector<std::byte*> first_blocks_;  // by layer
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
};

}  // namespace mlxs::cpu
