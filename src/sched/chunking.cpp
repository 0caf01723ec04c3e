// Chunked prefill (Sarathi-Serve, Agrawal et al. 2024) with shortest-remaining-first sharing.
#include "sched/chunking.h"

#include <algorithm>
#include <optional>
#include <tuple>

namespace mlxs {
namespace {

// Tokens of the next chunk, given that it may have at most `limit`.
std::int32_t chunk_size(const SchedEntry& entry, std::int32_t limit) {
  if (entry.remaining() <= limit) return entry.remaining();
  const std::int32_t start = entry.sequence.committed_tokens();
  const std::int32_t boundary = (start + limit) / kPageTokens * kPageTokens;
  return boundary > start ? boundary - start : limit;
}

}  // namespace

void split_prefill_budget(std::span<SchedEntry*> prompts, std::int32_t budget, const KvPool& pool,
                          std::vector<PrefillChunk>& chunks) {
  chunks.clear();
  if (prompts.empty()) return;
  const SchedEntry* oldest = *std::ranges::min_element(prompts, {}, &SchedEntry::admission);
  std::int32_t kept = std::min(oldest->remaining(), (budget + 1) / 2);
  std::ranges::sort(prompts, {},
                    [](const SchedEntry* e) { return std::tuple(e->tier, e->remaining(), e->admission); });

  std::vector<std::uint64_t> in_work;  // full pages that chunks of this step begin with
  for (SchedEntry* entry : prompts) {
    if (entry == oldest) kept = 0;
    const std::int32_t limit = budget - kept;
    if (limit <= 0) continue;
    const std::int32_t size = chunk_size(*entry, limit);
    if (entry != oldest && size < std::min(entry->remaining(), kPageTokens)) continue;
    const auto page = pool.next_page_hash(entry->sequence, entry->tokens);
    if (page && std::ranges::find(in_work, *page) != in_work.end()) continue;
    if (page && size >= kPageTokens) in_work.push_back(*page);
    chunks.push_back({entry, size});
    budget -= size;
  }
}

}  // namespace mlxs
