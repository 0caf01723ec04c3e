// Copy-on-write of a prompt's last page: equal prompts (the n choices of a request, a prompt sent again while
// it is being answered) share full pages through the prefix tree; the page that is not full is computed by
// the first and copied for the others, which then compute one token. One thread; refers to entries that run.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "kv/kv_pool.h"
#include "sched/entry.h"
#include "sched/step_plan.h"

namespace mlxs {

class Branching {
 public:
  explicit Branching(const KvPool& pool) : pool_(pool) {}

  // Its prompt is computed: others may copy the last page, until it is withdrawn.
  void offer(SchedEntry& entry);
  void withdraw(SchedEntry& entry);
  // What to copy for an entry that has only its last page left to compute; nullopt: nobody offers it.
  std::optional<PageBranch> branch(const SchedEntry& entry) const;
  // What the last page begins with, if that is all the entry has left to compute.
  static std::optional<std::uint64_t> tail_of(const SchedEntry& entry, const KvPool& pool);

 private:
  const KvPool& pool_;
  std::unordered_map<std::uint64_t, SchedEntry*> offers_;  // by SchedEntry::tail
};

}  // namespace mlxs
