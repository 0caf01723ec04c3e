// How the tokens that decode rows leave of a step's budget are split among prompts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/kv_pool.h"
#include "sched/entry.h"

namespace mlxs {

struct PrefillChunk {
  SchedEntry* entry = nullptr;
  std::int32_t tokens = 0;
};

// kShortestFirst: best tier first, within it the tenant that got the least service (a flood that was admitted
// before others came does not keep them waiting), then the shortest remaining prompt, so that a short prompt
// never waits for its own tenant's long one. Against starvation, half of the budget is kept for the prompt
// that was admitted first, whatever its tier and length: it advances in every step, and each prompt becomes
// the first admitted in the end. Crumbs of a page go to nobody but that first prompt. kFcfs and kFcfsWhole:
// best tier first, then in order of admission. In every order chunks end at page boundaries where they can,
// so that their pages are shareable at once (fill: they use up the budget instead, crumbs included, as
// devices like large steps to have round numbers of rows), and a prompt whose next page another chunk of this
// step computes waits for it: the next step finds it in the prefix tree. Reorders `prompts` (≥ 1 remaining
// token each); budget ≥ 0. Chunks come out in the order they run.
void split_prefill_budget(PrefillOrder order, std::span<SchedEntry*> prompts, std::int32_t budget, bool fill,
                          const KvPool& pool, const FairShare& share, std::vector<PrefillChunk>& chunks);

}  // namespace mlxs
