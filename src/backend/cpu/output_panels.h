// The panels of a weight in the order in which threads multiply them, with what each should fetch from memory
// meanwhile. A view of a weight, which must outlive it. Any pool thread may ask.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/linear_kernels.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

// One output panel: 16 columns of y from one panel of the weight, or from a gate panel and an up panel.
struct OutputPanel {
  const Segment* segment = nullptr;
  PanelView view;
  const Segment* up_segment = nullptr;  // of the second factor if gated, else as segment
  PanelView up;
  int column = 0, count = 0;
};

constexpr std::size_t kAheadBytes = 16384;  // what a thread has under way from memory (measured)

// The output panels of a weight. Gated: gate panels face up panels, if they line up (paired()).
class OutputPanels {
 public:
  OutputPanels(const CpuWeight& weight, bool gated, const NextWeight& next = {})
      : weight_(weight), next_(next), gated_(gated) {
    panels_ = gated ? weight.panels() / 2 : weight.panels();
    panel_bytes_ = weight.segments().front().panel_bytes;
    ahead_ = static_cast<std::int64_t>((kAheadBytes / sides() + panel_bytes_ - 1) / panel_bytes_);
  }

  // Gated weights whose halves begin at a panel need no detour through unfused sums.
  static bool paired(const CpuWeight& weight) {
    const std::int64_t half = weight.rows() / 2;
    if (weight.segments().size() == 1) return half % kLanes == 0;
    return weight.segments().size() == 2 && weight.segments()[0].rows == half;
  }

  int size() const { return static_cast<int>(panels_); }

  // As one of a share of panels that a thread walks in order; share.end counts panels.
  OutputPanel at(std::int64_t panel, const ThreadPool::Share& share) const {
    OutputPanel result;
    result.segment = &weight_.segment_of_panel(panel);
    result.view = weight_.panel(*result.segment, panel);
    result.view.ahead = ahead(panel, 0, share, result.view.codes);
    result.up_segment = result.segment;
    const Segment& s = *result.segment;
    result.column = static_cast<int>(s.first_row + (panel - s.first_panel) * kLanes);
    std::int64_t end = s.first_row + s.rows;
    if (gated_) {
      end = std::min(end, weight_.rows() / 2);
      result.up_segment = &weight_.segment_of_panel(panel + panels_);
      result.up = weight_.panel(*result.up_segment, panel + panels_);
      result.up.ahead = ahead(panel, 1, share, result.up.codes);
    }
    result.count = static_cast<int>(std::min<std::int64_t>(kLanes, end - result.column));
    return result;
  }
  OutputPanel at(std::int64_t panel) const { return at(panel, {0, panels_, 0, 1}); }

 private:
  std::size_t sides() const { return gated_ ? 2 : 1; }

  // Panels further on in the share, or, behind its end, the beginning of the same thread's share of the next
  // weight. side: 0 gate (or all), 1 up. `none`: where there is nothing to fetch.
  const std::byte* ahead(std::int64_t panel, std::size_t side, const ThreadPool::Share& share,
                         const std::byte* none) const {
    const std::int64_t to = panel + ahead_;
    if (to < share.end) {
      const std::int64_t index = to + static_cast<std::int64_t>(side) * panels_;
      return weight_.panel(weight_.segment_of_panel(index), index).codes;
    }
    if (next_.data == nullptr) return none;
    std::size_t place =
        static_cast<std::size_t>(to - share.end) * sides() + side;  // in panels of this weight
    std::size_t first = 0, bytes = next_.bytes;
    if (next_.gated) {
      bytes /= 2;
      first = place % 2 * bytes;
      place /= 2;
    }
    const auto owner = static_cast<std::size_t>(share.owner), owners = static_cast<std::size_t>(share.owners);
    const std::size_t begin = bytes * owner / owners, end = bytes * (owner + 1) / owners;
    if (begin + (place + 1) * panel_bytes_ > end) return none;
    return next_.data + (first + begin + place * panel_bytes_) / 64 * 64;
  }

  const CpuWeight& weight_;
  NextWeight next_;
  bool gated_;
  std::int64_t panels_;
  std::size_t panel_bytes_;
  std::int64_t ahead_;  // panels
};

}  // namespace mlxs::cpu
