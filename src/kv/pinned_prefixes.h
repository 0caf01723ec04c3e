// Prompts that stay in the cache although no request uses them, such as system prompts: each is held like a
// sequence, so nothing evicts it. Bounded in pages: the one that was used longest ago makes room for a new
// one; and in time: what was unused for its `ttl` goes. Its owner gives pins up where a request could not run
// otherwise. One thread; refers to the pool.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "base/clock.h"
#include "kv/kv_pool.h"

namespace mlxs {

struct PinStats {
  std::int32_t prompts = 0, pages = 0, most_pages = 0;  // now; a page of two prompts counts once
  std::uint64_t pinned = 0, hits = 0;                   // prompts; requests that began with one
  std::uint64_t expired = 0, displaced = 0;             // unused for too long; for a newer pin, or a request
  std::uint64_t refused = 0;                            // longer than all that may be pinned
};

class PinnedPrefixes {
 public:
  PinnedPrefixes(KvPool& pool, std::int32_t most_pages, Duration ttl)
      : pool_(pool), ttl_(ttl), stats_{.most_pages = most_pages} {}
  ~PinnedPrefixes() { clear(); }
  PinnedPrefixes(const PinnedPrefixes&) = delete;
  PinnedPrefixes& operator=(const PinnedPrefixes&) = delete;

  // The full pages of tokens[0, count) that the cache has; tokens are more than count. Pinned already: used,
  // and kept for the longer of both times. ttl: at most that of all; 0: that.
  void pin(std::span<const TokenId> tokens, std::int32_t count, std::uint64_t salt, TimePoint now,
           Duration ttl = {});
  void used_by(const KvSequence& sequence, TimePoint now);  // a request, just opened
  void expire(TimePoint now);
  bool give_up_oldest();  // false: there is none
  void clear();

  const PinStats& stats() const { return stats_; }
  void add_holders(std::span<std::int32_t> holders) const;         // one more for each page that it holds
  void add_window_holders(std::span<std::int32_t> holders) const;  // the same of pages' window places

 private:
  struct Pin {
    KvSequence sequence;
    TimePoint used{};
    Duration ttl{};
  };
  using Pins =
      std::unordered_map<PageId, Pin>;  // by their last page, which is theirs as long as they hold it

  void unpin(Pins::iterator pin);
  std::int32_t not_held(const KvSequence& sequence) const;  // of its pages, by no pin

  KvPool& pool_;
  Duration ttl_;
  Pins pins_;
  std::unordered_map<PageId, std::int32_t> held_;  // by so many pins
  PinStats stats_;
};

}  // namespace mlxs
