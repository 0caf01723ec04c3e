#include "kv/window_places.h"

#include <fmt/format.h>

#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void fail(std::string what) {
  throw Error(ErrorCode::kInternal, "KV pool: " + std::move(what), "this is a bug; please report it");
}

}  // namespace

WindowPlaces::WindowPlaces(std::int32_t num_pages, std::int32_t places) : total_(places) {
  if (places == 0) return;
  pages_.resize(static_cast<std::size_t>(num_pages));
  free_.reserve(static_cast<std::size_t>(places));
  for (PageId place = places; place-- > 0;) free_.push_back(place);
}

bool WindowPlaces::take(PageId page) {
  if (at(page).place >= 0) fail(fmt::format("page {} takes a second place", page));
  if (free_.empty()) {
    const PageId victim = passed_.oldest >= 0 ? passed_.oldest : used_.oldest;
    if (victim < 0) return false;
    ++evictions_;
    drop(victim);
  }
  at(page).place = free_.back();
  free_.pop_back();
  at(page).holders = 1;
  return true;
}

void WindowPlaces::hold(PageId page) {
  if (at(page).place < 0) fail(fmt::format("page {} has no place to hold", page));
  if (at(page).holders++ == 0) unlink(page);
}

void WindowPlaces::release(PageId page, bool passed) {
  Page& entry = at(page);
  if (entry.holders < 1) fail(fmt::format("the place of page {} is released and not held", page));
  if (--entry.holders > 0) return;
  entry.passed = passed;
  Idle& list = list_of(entry);
  entry.older = list.newest;
  entry.newer = -1;
  (list.newest >= 0 ? at(list.newest).newer : list.oldest) = page;
  list.newest = page;
  ++idle_;
}

void WindowPlaces::drop(PageId page) {
  if (of(page) < 0) return;
  if (at(page).holders > 0) fail(fmt::format("the place of page {} is dropped and held", page));
  unlink(page);
  free_.push_back(std::exchange(at(page).place, -1));
}

void WindowPlaces::move(PageId from, PageId to) {
  if (at(to).place >= 0 || at(from).holders < 1)
    fail(fmt::format("page {} gives a place to page {}", from, to));
  at(to).place = std::exchange(at(from).place, -1);
  at(to).holders = std::exchange(at(from).holders, 0);
}

void WindowPlaces::unlink(PageId page) {
  const Page& entry = at(page);
  Idle& list = list_of(entry);
  (entry.older >= 0 ? at(entry.older).newer : list.oldest) = entry.newer;
  (entry.newer >= 0 ? at(entry.newer).older : list.newest) = entry.older;
  --idle_;
}

void WindowPlaces::check() const {
  if (pages_.empty()) return;
  std::vector<bool> seen(static_cast<std::size_t>(total_), false);
  const auto see = [&](PageId place) {
    if (place < 0 || place >= total_ || seen[static_cast<std::size_t>(place)])
      fail(fmt::format("window place {} is in two places, or in none", place));
    seen[static_cast<std::size_t>(place)] = true;
  };
  for (const PageId place : free_) see(place);
  std::int32_t with_place = 0, held = 0;
  for (const Page& page : pages_) {
    if (page.place < 0 && page.holders != 0) fail("a page without a window place has holders of one");
    if (page.place < 0) continue;
    see(page.place);
    ++with_place;
    held += page.holders > 0 ? 1 : 0;
  }
  std::int32_t idle = 0;
  for (const bool passed : {false, true}) {
    const Idle& list = passed ? passed_ : used_;
    PageId older = -1;
    for (PageId page = list.oldest; page >= 0; older = page, page = at(page).newer, ++idle) {
      const Page& entry = at(page);
      if (entry.place < 0 || entry.holders != 0 || entry.older != older || entry.passed != passed)
        fail(fmt::format("page {} has an idle place and does not", page));
    }
    if (older != list.newest) fail("the list of idle window places ends elsewhere");
  }
  if (idle != idle_ || held + idle != with_place || with_place + free() != total_) {
    fail(fmt::format("{} held + {} idle + {} free != {} window places", held, idle, free(), total_));
  }
}

}  // namespace mlxs
