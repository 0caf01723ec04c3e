#include "backend/cpu/cpu_weight.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/regroup.h"
#include "backend/weight_cache.h"
#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

void check_part(const RawWeight& part, std::int64_t columns) {
  const DTypeInfo& info = dtype_info(part.type);
  const auto fail = [&](std::string_view what) {
    throw Error(ErrorCode::kModelLoad, fmt::format("tensor '{}' ({} [{}, {}]) {}", part.name, info.name,
                                                   part.rows, part.columns, what));
  };
  if (!regrouped_type(part.type)) fail("has a type that the CPU backend has no kernel for");
  if (part.rows < 1 || part.columns < 1) fail("is empty");
  if (part.columns != columns) fail(fmt::format("is stacked with a tensor of {} columns", columns));
  if (part.columns % info.block_elements != 0)
    fail(fmt::format("has rows that are no whole blocks of {}", info.block_elements));
  if (part.bytes.size() != row_bytes(part.type, part.columns) * static_cast<std::size_t>(part.rows)) {
    fail(fmt::format("has {} bytes instead of {}", part.bytes.size(),
                     row_bytes(part.type, part.columns) * static_cast<std::size_t>(part.rows)));
  }
  check_scales(part);
}

// Packs panel `index` of a part, by way of a block type if its scales lie beside it.
void pack_part(const RawWeight& part, std::int64_t index, std::byte* out) {
  const std::int64_t first = index * kLanes;
  const int rows = static_cast<int>(std::min<std::int64_t>(kLanes, part.rows - first));
  const DType type = *regrouped_type(part.type);
  const std::size_t stride = row_bytes(type, part.columns);
  if (!part.scales) {
    pack_panel(type, part.bytes.data() + static_cast<std::size_t>(first) * stride, stride, rows, part.columns,
               out);
    return;
  }
  std::vector<std::byte> block(stride * static_cast<std::size_t>(rows));
  for (int i = 0; i < rows; ++i) {
    regroup_row(part, first + i, block.data() + static_cast<std::size_t>(i) * stride);
  }
  pack_panel(type, block.data(), stride, rows, part.columns, out);
}

// Where a part's panels go, and what to pack there.
struct Placement {
  const RawWeight* part;
  std::int64_t first_panel;
};

}  // namespace

std::span<std::byte> CpuWeight::allocate(std::size_t bytes) {
  // Huge pages spare the decode loop its TLB misses.
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("cannot allocate {} MiB for packed weights", bytes >> 20),
                "close other programs or choose a smaller model");
  }
#ifdef MADV_HUGEPAGE
  ::madvise(address, bytes, MADV_HUGEPAGE);
#endif
  storage_ = std::shared_ptr<void>(address, [bytes](void* memory) { ::munmap(memory, bytes); });
  return {static_cast<std::byte*>(address), bytes};
}

CpuWeight::CpuWeight(ThreadPool& pool, std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) {
  if (parts.empty()) throw Error(ErrorCode::kInternal, "prepare() was called without a tensor");
  columns_ = parts.front().columns;
  for (const RawWeight& part : parts) {
    check_part(part, columns_);
    rows_ += part.rows;
  }
  if (use == WeightUse::kVector) {
    floats_.resize(static_cast<std::size_t>(rows_ * columns_));
    float* out = floats_.data();
    for (const RawWeight& part : parts) {
      const DType type = *regrouped_type(part.type);
      std::vector<std::byte> row_of_blocks(row_bytes(type, columns_));
      for (std::int64_t row = 0; row < part.rows; ++row, out += columns_) {
        regroup_row(part, row, row_of_blocks.data());
        dequantize_row(type, row_of_blocks.data(), columns_, out);
      }
    }
    packed_bytes_ = floats_.size() * sizeof(float);
    return;
  }

  std::vector<Placement> placements;
  std::int64_t row = 0, panel = 0;
  for (const RawWeight& part : parts) {
    const Packing packing = *packing_of(*regrouped_type(part.type));
    const bool joins =
        !segments_.empty() && segments_.back().packing == packing && segments_.back().rows % kLanes == 0;
    if (!joins) {
      segments_.push_back({.packing = packing,
                           .first_row = row,
                           .first_panel = panel,
                           .panel_bytes = panel_bytes(packing, columns_)});
    }
    placements.push_back({&part, panel});
    Segment& segment = segments_.back();
    segment.rows += part.rows;
    segment.panels += panels_of(part.rows);
    row += part.rows;
    panel += panels_of(part.rows);
  }
  for (const Segment& segment : segments_)
    packed_bytes_ += segment.panel_bytes * static_cast<std::size_t>(segment.panels);

  const std::string key = fmt::format("{}:{}:{}", parts.front().name, parts.size(),
                                      use == WeightUse::kEmbedding ? "embedding" : "matrix");
  const std::byte* packed = nullptr;
  if (cache != nullptr) {
    if (const auto entry = cache->find(key); entry && entry->size() == packed_bytes_) packed = entry->data();
    storage_ = cache->keep_alive();
  }
  std::byte* fresh = nullptr;
  if (packed == nullptr)
    packed = fresh = (cache != nullptr ? cache->create(key, packed_bytes_) : allocate(packed_bytes_)).data();
  for (Segment& segment : segments_) {
    segment.data = packed;
    packed += segment.panel_bytes * static_cast<std::size_t>(segment.panels);
  }
  if (fresh == nullptr) return;

  for (const Placement& placement : placements) {
    const RawWeight& part = *placement.part;
    const Segment& segment = segment_of_panel(placement.first_panel);
    std::byte* out =
        fresh + (segment.data - segments_.front().data) +
        static_cast<std::size_t>(placement.first_panel - segment.first_panel) * segment.panel_bytes;
    pool.parallel_for(panels_of(part.rows), 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i)
        pack_part(part, i, out + static_cast<std::size_t>(i) * segment.panel_bytes);
    });
  }
}

const Segment& CpuWeight::segment_of_panel(std::int64_t panel) const {
  std::size_t i = 0;
  while (i + 1 < segments_.size() && panel >= segments_[i + 1].first_panel) ++i;
  return segments_[i];
}

PanelView CpuWeight::panel(const Segment& segment, std::int64_t panel) const {
  const std::byte* at =
      segment.data + static_cast<std::size_t>(panel - segment.first_panel) * segment.panel_bytes;
  const int blocks = blocks_of(columns_);
  return {at, at + static_cast<std::size_t>(blocks) * packed_format(segment.packing).code_bytes(), blocks};
}

void CpuWeight::read_row(std::int64_t row, float* out) const {
  std::size_t i = 0;
  while (i + 1 < segments_.size() && row >= segments_[i + 1].first_row) ++i;
  const Segment& segment = segments_[i];
  const std::int64_t local = row - segment.first_row;
  const std::byte* at = segment.data + static_cast<std::size_t>(local / kLanes) * segment.panel_bytes;
  unpack_row(segment.packing, at, static_cast<int>(local % kLanes), columns_, out);
}

}  // namespace mlxs::cpu
