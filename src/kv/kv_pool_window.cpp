// The pool's side of layers with a window, where others see everything: a sequence holds the window places of
// a run of its pages.
#include <algorithm>

#include "kv/kv_pool.h"

namespace mlxs {

bool KvPool::reserve_window(KvSequence& sequence, std::int32_t start, std::int32_t end) {
  if (!has_layer_window()) return true;
  const std::int32_t first = first_seen(start);
  if (first > sequence.window_end_) {
    release_window(sequence, sequence.window_first_, sequence.window_end_, true);
    sequence.window_first_ = sequence.window_end_ = first;
  }
  for (; sequence.window_end_ < pages_for(end); ++sequence.window_end_) {
    const PageId page = sequence.pages_[static_cast<std::size_t>(sequence.window_end_)];
    if (places_.of(page) >= 0) {
      places_.hold(page);
    } else if (!places_.take(page)) {
      return false;
    }
  }
  return true;
}

void KvPool::give_back_window(KvSequence& sequence) {
  const std::int32_t end = std::max(sequence.window_first_, pages_for(sequence.committed_));
  if (end >= sequence.window_end_) return;
  release_window(sequence, end, sequence.window_end_, false);
  sequence.window_end_ = end;
}

// As the whole pages that it has computed need it, so that they are a prefix that can be found.
void KvPool::pass_window(KvSequence& sequence) {
  const std::int32_t whole = sequence.committed_ / kPageTokens * kPageTokens;
  const std::int32_t end = std::min(first_seen(whole), sequence.window_end_);
  if (end <= sequence.window_first_) return;
  release_window(sequence, sequence.window_first_, end, true);
  window_passed_ += static_cast<std::uint64_t>(end - sequence.window_first_);
  sequence.window_first_ = end;
}

// From the last to the first, so that what a shorter prefix needs, too, is kept for longest. What is not in
// the tree is of no use to anybody else. What it passed is of little use, but where it parted from others,
// and where its prompt ended or a little before: there the next one that begins alike may part, too.
void KvPool::release_window(const KvSequence& sequence, std::int32_t begin, std::int32_t end, bool passed) {
  const auto ends_soon = [&](std::int32_t page, std::int32_t stop) {
    return page < stop && page >= first_seen(stop * kPageTokens) - 1;
  };
  for (std::int32_t i = end; i-- > begin;) {
    const PageId page = sequence.pages_[static_cast<std::size_t>(i)];
    places_.release(page, passed && !ends_soon(i, sequence.matched_) && !ends_soon(i, sequence.asked_));
    if (places_.holders(page) == 0 && !tree_.contains(page)) places_.drop(page);
  }
}

// Both hold the same: one place is enough.
void KvPool::share_window(PageId own, PageId twin) {
  if (places_.of(twin) < 0) return places_.move(own, twin);
  places_.hold(twin);
  places_.release(own, true);
  places_.drop(own);
}

void KvPool::free_page(PageId page) {
  places_.drop(page);
  free_.push_back(page);
}

}  // namespace mlxs
