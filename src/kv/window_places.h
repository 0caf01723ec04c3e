// Where a page's KV of the layers with a window lies, in a model whose other layers see everything: there are
// fewer places than pages, and a page has one or none. Numbers only; the KvPool owns it. A place is free,
// held (a sequence's next rows see the page), or idle: nobody needs it now, and it is kept for those who
// begin alike until somebody lacks one: first those that were only passed, as one finds a prefix by the
// places right before its end, then the others; of each the least recently held. One thread; O(1); allocates
// only when made.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.h"

namespace mlxs {

class WindowPlaces {
 public:
  WindowPlaces(std::int32_t num_pages, std::int32_t places);  // 0 places: every page has none

  // The first page that a row at position `tokens` sees.
  static constexpr std::int32_t first_seen(std::int32_t tokens, std::int32_t window) {
    return tokens + 1 > window ? (tokens + 1 - window) / kPageTokens : 0;
  }
  // Places with which so many sequences never lack one in steps of so many tokens: what each sees of its
  // past, what it adds, and as much again for a step that is planned while another runs.
  static constexpr std::int64_t enough(std::int32_t window, std::int64_t sequences, std::int64_t tokens) {
    const std::int64_t past = (std::int64_t{window} + 14 + kPageTokens - 1) / kPageTokens;
    return sequences * (past + 2) + 2 * ((tokens + kPageTokens - 1) / kPageTokens);
  }

  PageId of(PageId page) const { return pages_.empty() ? -1 : at(page).place; }  // -1: none
  std::int32_t holders(PageId page) const { return pages_.empty() ? 0 : at(page).holders; }
  std::int32_t total() const { return total_; }
  std::int32_t free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t idle() const { return idle_; }
  std::int32_t held() const { return total_ - free() - idle_; }
  std::uint64_t evictions() const { return evictions_; }

  // A place for a page that has none, held once. False: all are held.
  bool take(PageId page);
  void hold(PageId page);                  // of a page that has one
  void release(PageId page, bool passed);  // idle once nobody holds it
  void drop(PageId page);             // held by nobody; free at once. Nothing to do where the page has none
  void move(PageId from, PageId to);  // the place and its holders; `to` has none

  void check() const;  // throws kInternal that names what is wrong; O(pages)

 private:
  struct Page {
    PageId place = -1;
    std::int32_t holders = 0;
    bool passed = false;
    PageId older = -1,
           newer = -1;  // while idle: neighbours in order of use, among those that were passed or not
  };
  struct Idle {
    PageId oldest = -1, newest = -1;
  };
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  Idle& list_of(const Page& page) { return page.passed ? passed_ : used_; }
  void unlink(PageId page);

  std::int32_t total_;
  std::vector<Page> pages_;
  std::vector<PageId> free_;  // places
  Idle used_, passed_;
  std::int32_t idle_ = 0;
  std::uint64_t evictions_ = 0;
};

}  // namespace mlxs
