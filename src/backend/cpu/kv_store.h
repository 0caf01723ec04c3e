// The KV tensors of one model on the CPU: one reservation of address space, page after page, touched only
// where written. A page is [layers][kv heads] blocks, so copying a page is one memcpy and few pages stay few
// bytes of memory. Owned by the model's runner; blocks of different (page, layer, head) may be written by
// different threads. The constructor throws kInvalidArgument on a shape or type it cannot hold, kOutOfMemory
// with the figures.
#pragma once

#include <cstddef>
#include <span>

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

  std::size_t bytes() const override { return page_bytes_ * static_cast<std::size_t>(spec_.num_pages); }
  const KvSpec& spec() const { return spec_; }
  const KvLayout& layout() const { return layout_; }
  std::size_t page_bytes() const override { return page_bytes_; }
  void read_page(PageId page, std::span<std::byte> out) const override;
  void write_page(PageId page, std::span<const std::byte> bytes) override;
  // Block of (layer, head) in page 0; that of page p lies p · page_bytes() further. 64-byte aligned.
  std::byte* blocks(int layer, int head) const {
    return base_ + static_cast<std::size_t>(layer * spec_.kv_heads + head) * layout_.block_bytes;
  }
  void copy_page(PageId from, PageId to);

 private:
  KvSpec spec_;
  KvLayout layout_;
  std::size_t page_bytes_ = 0;
  std::byte* base_ = nullptr;  // aligned to a huge page
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
};

}  // namespace mlxs::cpu
