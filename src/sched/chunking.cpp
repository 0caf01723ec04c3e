// Chunked prefill (Sarathi-Serve, Agrawal et al. 2024) with shortest-remaining-first sharing.
#include "sched/chunking.h"

#include <algorithm>
#include <tuple>

#include "sched/branching.h"

namespace mlxs {
namespace {

// Tokens of the next chunk, given that it may have at most `limit`.
std::int32_t chunk_size(const SchedEntry& entry, std::int32_t limit, bool fill) {
  if (fill || entry.remaining() <= limit) return std::min(entry.remaining(), limit);
  const std::int32_t start = entry.sequence.committed_tokens();
  const std::int32_t boundary = (start + limit) / kPageTokens * kPageTokens;
  return boundary > start ? boundary - start : limit;
}

// Pages that the chunks of a step begin with, full or the prompt's last: nobody computes the same page beside
// them.
class PagesInWork {
 public:
  explicit PagesInWork(const KvPool& pool) : pool_(pool) {}

  // False if another chunk computes the page that this one would begin with.
  bool claim(const SchedEntry& entry, std::int32_t tokens) {
    auto page = pool_.next_page_hash(entry.sequence, entry.tokens);
    std::int32_t needed = kPageTokens;
    if (!page && entry.max_tokens > entry.num_tokens() + 1) {  // it will be there for the others
      page = Branching::tail_of(entry, pool_);
      needed = entry.remaining();
    }
    if (page && std::ranges::find(pages_, *page) != pages_.end()) return false;
    if (page && tokens >= needed) pages_.push_back(*page);
    return true;
  }

 private:
  const KvPool& pool_;
  std::vector<std::uint64_t> pages_;
};

void split_shortest_first(std::span<SchedEntry*> prompts, std::int32_t budget, bool fill,
                          const FairShare& share, PagesInWork& in_work, std::vector<PrefillChunk>& chunks) {
  const SchedEntry* oldest = *std::ranges::min_element(prompts, {}, &SchedEntry::admission);
  std::int32_t kept = std::min(oldest->remaining(), (budget + 1) / 2);
  for (SchedEntry* entry : prompts) entry->tenant_service = share.service(entry->tenant);
  std::ranges::sort(prompts, {}, [](const SchedEntry* e) {
    return std::tuple(e->tier, e->tenant_service, e->remaining(), e->admission);
  });
  for (SchedEntry* entry : prompts) {
    if (entry == oldest) kept = 0;
    const std::int32_t limit = budget - kept;
    if (limit <= 0) continue;
    const std::int32_t size = chunk_size(*entry, limit, fill);
    if (!fill && entry != oldest && size < std::min(entry->remaining(), kPageTokens)) continue;
    if (!in_work.claim(*entry, size)) continue;
    chunks.push_back({entry, size});
    budget -= size;
  }
}

void split_fcfs(bool whole, std::span<SchedEntry*> prompts, std::int32_t budget, bool fill,
                PagesInWork& in_work, std::vector<PrefillChunk>& chunks) {
  std::ranges::sort(prompts, {}, [](const SchedEntry* e) { return std::tuple(e->tier, e->admission); });
  for (SchedEntry* entry : prompts) {
    const bool fits = entry->remaining() <= budget;
    if (whole ? !fits && !chunks.empty() : budget <= 0) return;
    const std::int32_t size = whole ? entry->remaining() : chunk_size(*entry, budget, fill);
    if (!in_work.claim(*entry, size)) continue;
    chunks.push_back({entry, size});
    budget -= size;
  }
}

}  // namespace

void split_prefill_budget(PrefillOrder order, std::span<SchedEntry*> prompts, std::int32_t budget, bool fill,
                          const KvPool& pool, const FairShare& share, std::vector<PrefillChunk>& chunks) {
  chunks.clear();
  if (prompts.empty()) return;
  PagesInWork in_work(pool);
  if (order == PrefillOrder::kShortestFirst)
    return split_shortest_first(prompts, budget, fill, share, in_work, chunks);
  split_fcfs(order == PrefillOrder::kFcfsWhole, prompts, budget, fill, in_work, chunks);
}

}  // namespace mlxs
