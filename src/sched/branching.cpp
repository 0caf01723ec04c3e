#include "sched/branching.h"

#include <algorithm>
#include <span>

namespace mlxs {

void Branching::offer(SchedEntry& entry) {
  withdraw(entry);
  entry.tail = pool_.tail_hash(entry.sequence, entry.tokens, entry.prompt_tokens - 1);
  if (entry.tail) offers_[*entry.tail] = &entry;
}

void Branching::withdraw(SchedEntry& entry) {
  if (!entry.tail) return;
  if (const auto found = offers_.find(*entry.tail); found != offers_.end() && found->second == &entry)
    offers_.erase(found);
  entry.tail.reset();
}

std::optional<PageBranch> Branching::branch(const SchedEntry& entry) const {
  const auto key = tail_of(entry, pool_);
  if (!key) return std::nullopt;
  const auto found = offers_.find(*key);
  if (found == offers_.end()) return std::nullopt;
  // Equal hashes are not enough: what is compared is the page before, and the tokens of this one.
  const SchedEntry& other = *found->second;
  const auto begin = static_cast<std::size_t>(entry.sequence.committed_tokens());
  const auto end = static_cast<std::size_t>(entry.num_tokens() - 1);
  const std::size_t page = begin / kPageTokens;
  const auto mine = entry.sequence.pages(), theirs = other.sequence.pages();
  if (other.cache_salt != entry.cache_salt ||
      other.sequence.committed_tokens() < static_cast<std::int32_t>(end) || theirs[page] < 0) {
    return std::nullopt;
  }
  if (page > 0 && theirs[page - 1] != mine[page - 1]) return std::nullopt;
  const auto tail = std::span(entry.tokens).subspan(begin, end - begin);
  if (!std::ranges::equal(tail, std::span(other.tokens).subspan(begin, end - begin))) return std::nullopt;
  return PageBranch{theirs[page], mine[page]};
}

std::optional<std::uint64_t> Branching::tail_of(const SchedEntry& entry, const KvPool& pool) {
  const std::int32_t committed = entry.sequence.committed_tokens();
  if (committed % kPageTokens != 0 || entry.remaining() > kPageTokens) return std::nullopt;
  return pool.tail_hash(entry.sequence, entry.tokens, entry.num_tokens() - 1);
}

}  // namespace mlxs
