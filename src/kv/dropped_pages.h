// Which prefixes were in the cache once: chain hashes of dropped pages and why they went, for the reasons of
// misses. A fixed number of slots; a newer hash may displace an older one, so it forgets, but it never
// mistakes one hash for another. One thread; allocates only when made.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlxs {

class DroppedPages {
 public:
  enum class Cause : std::uint8_t { kNone, kEvicted, kExpired };

  explicit DroppedPages(std::size_t pages) : slots_(std::bit_ceil(4 * pages)) {}

  void add(std::uint64_t hash, Cause cause) { slot(hash) = {hash, cause}; }
  Cause find(std::uint64_t hash) const {
    const Slot& found = slots_[hash & (slots_.size() - 1)];
    return found.hash == hash ? found.cause : Cause::kNone;
  }

 private:
  struct Slot {
    std::uint64_t hash = 0;
    Cause cause = Cause::kNone;
  };
  Slot& slot(std::uint64_t hash) { return slots_[hash & (slots_.size() - 1)]; }

  std::vector<Slot> slots_;
};

}  // namespace mlxs
