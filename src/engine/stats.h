// The scheduler's and the pool's statistics as the public API has them, under the names that clients see.
// Pure.
#pragma once

#include <string>
#include <string_view>

#include "engine/disk_tier.h"
#include "engine/encoder_runner.h"
#include "kv/kv_pool.h"
#include "mlxs/engine.h"
#include "sched/scheduler.h"

namespace mlxs {

EngineSchedulerStats engine_stats(std::string_view model, const SchedulerStats& stats);
// EngineSchedulerStats::kv_page_map, and the pages that several sequences hold. O(pages).
struct PageMap {
  std::string cells;
  int shared = 0;
};
PageMap page_map(const KvPool& pool);

EngineSchedulerStats encoder_stats(std::string_view model, const EncoderRunner& encoder);
void add_disk_stats(EngineSchedulerStats& stats, const DiskTierStats& disk);
std::string_view miss_reason_name(MissReason reason);  // "evicted" …; "" for kNone

}  // namespace mlxs
