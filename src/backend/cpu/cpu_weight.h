// A weight in the CPU's layout: panels (packed_format.h) of one or several stacked parts, or a vector of
// floats. Immutable. Owns its memory, or keeps the mapping of the weight cache alive.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/packed_format.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

// Neighbouring parts of one packing. Starts at a panel.
struct Segment {
  Packing packing = Packing::kF32;
  std::int64_t rows = 0;
  std::int64_t first_row = 0;  // of the whole weight
  std::int64_t first_panel = 0;
  std::int64_t panels = 0;
  std::size_t panel_bytes = 0;
  const std::byte* data = nullptr;
};

// The packed bytes of the weight that will probably be multiplied next: while one weight's last panels are
// multiplied, memory already delivers the first ones of this. A hint: the bytes need not exist any more.
struct NextWeight {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  bool gated = false;
};

class CpuWeight final : public Weight {
 public:
  // Packs `parts`, or takes the packed form from the cache. Throws kModelLoad.
  CpuWeight(ThreadPool& pool, std::span<const RawWeight> parts, WeightUse use, WeightCache* cache);

  bool is_vector() const { return !floats_.empty(); }
  const float* floats() const { return floats_.data(); }  // of a vector

  std::span<const Segment> segments() const { return segments_; }
  std::int64_t panels() const {
    return segments_.empty() ? 0 : segments_.back().first_panel + segments_.back().panels;
  }
  const Segment& segment_of_panel(std::int64_t panel) const;
  PanelView panel(const Segment& segment, std::int64_t panel) const;  // panel: of the whole weight
  void read_row(std::int64_t row, float* out) const;                  // columns() floats

  // What followed this weight the last time; the engine thread's.
  const NextWeight& next() const { return next_; }
  void precede(const CpuWeight& other, bool gated) const {
    next_ = {other.segments_.front().data, other.packed_bytes_, gated};
  }

 private:
  std::span<std::byte> allocate(std::size_t bytes);

  std::vector<float> floats_;
  std::vector<Segment> segments_;
  mutable NextWeight next_;
  std::shared_ptr<const void> storage_;  // of the segments: our own memory, or the cache's mapping
};

}  // namespace mlxs::cpu
