#include "kv/pinned_prefixes.h"

#include <algorithm>
#include <utility>

namespace mlxs {
namespace {

std::int32_t pages_of(const KvSequence& sequence) {
  return static_cast<std::int32_t>(sequence.pages().size());
}

}  // namespace

void PinnedPrefixes::pin(std::span<const TokenId> tokens, std::int32_t count, std::uint64_t salt,
                         TimePoint now, Duration ttl) {
  if (stats_.most_pages == 0) return;
  ttl = ttl > Duration{} ? std::min(ttl, ttl_) : ttl_;
  const auto full = static_cast<std::size_t>(count / kPageTokens * kPageTokens);
  KvSequence sequence = pool_.open_uncounted(tokens.first(full + 1), salt);
  const std::int32_t pages = pages_of(sequence);
  const auto known = pages > 0 ? pins_.find(sequence.pages().back()) : pins_.end();
  if (pages == 0 || known != pins_.end() || pages > stats_.most_pages) {
    if (known != pins_.end()) {
      known->second.used = now;
      known->second.ttl = std::max(known->second.ttl, ttl);
    }
    stats_.refused += pages > stats_.most_pages ? 1 : 0;
    return pool_.close(std::move(sequence));
  }
  while (stats_.pages + not_held(sequence) > stats_.most_pages) give_up_oldest();
  for (const PageId page : sequence.pages()) stats_.pages += held_[page]++ == 0 ? 1 : 0;
  const PageId last = sequence.pages().back();
  pins_.emplace(last, Pin{std::move(sequence), now, ttl});
  ++stats_.pinned;
  ++stats_.prompts;
}

void PinnedPrefixes::used_by(const KvSequence& sequence, TimePoint now) {
  if (pins_.empty()) return;
  bool hit = false;
  for (const PageId page : sequence.pages()) {
    const auto found = pins_.find(page);
    if (found == pins_.end()) continue;
    found->second.used = now;
    hit = true;
  }
  stats_.hits += hit ? 1 : 0;
}

void PinnedPrefixes::expire(TimePoint now) {
  for (auto pin = pins_.begin(); pin != pins_.end();) {
    const auto next = std::next(pin);
    if (now - pin->second.used >= pin->second.ttl) {
      ++stats_.expired;
      unpin(pin);
    }
    pin = next;
  }
}

bool PinnedPrefixes::give_up_oldest() {
  if (pins_.empty()) return false;
  ++stats_.displaced;
  unpin(std::ranges::min_element(pins_, {}, [](const auto& pin) {
    return std::pair(pin.second.used, pin.first);  // of two as old always the same
  }));
  return true;
}

void PinnedPrefixes::clear() {
  while (!pins_.empty()) unpin(pins_.begin());
}

void PinnedPrefixes::add_holders(std::span<std::int32_t> holders) const {
  for (const auto& [last, pin] : pins_) {
    for (const PageId page : pin.sequence.pages()) ++holders[static_cast<std::size_t>(page)];
  }
}

void PinnedPrefixes::add_window_holders(std::span<std::int32_t> holders) const {
  for (const auto& [last, pin] : pins_) {
    for (const PageId page : pin.sequence.window_held()) ++holders[static_cast<std::size_t>(page)];
  }
}

std::int32_t PinnedPrefixes::not_held(const KvSequence& sequence) const {
  return static_cast<std::int32_t>(
      std::ranges::count_if(sequence.pages(), [&](PageId page) { return !held_.contains(page); }));
}

void PinnedPrefixes::unpin(Pins::iterator pin) {
  --stats_.prompts;
  for (const PageId page : pin->second.sequence.pages()) {
    if (const auto held = held_.find(page); --held->second == 0) {
      held_.erase(held);
      --stats_.pages;
    }
  }
  pool_.close(std::move(pin->second.sequence));
  pins_.erase(pin);
}

}  // namespace mlxs
