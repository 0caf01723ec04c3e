#include "engine/stats.h"

namespace mlxs {

std::string_view miss_reason_name(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kExpired:
      return "expired";
    case MissReason::kDiverged:
      return "diverged";
    case MissReason::kNew:
      return "new";
    case MissReason::kWindow:
      return "window";
  }
  return "";
}

EngineSchedulerStats engine_stats(std::string_view model, const SchedulerStats& s) {
  EngineSchedulerStats stats{.model = std::string(model),
                             .running = s.running,
                             .waiting = s.waiting,
                             .paused = s.paused,
                             .steps = s.steps,
                             .admitted = s.admitted,
                             .finished = s.finished,
                             .refused = s.refused,
                             .preemptions = s.preemptions,
                             .prompt_tokens = s.prompt_tokens,
                             .generated_tokens = s.generated_tokens,
                             .cached_prompt_tokens = s.cached_prompt_tokens,
                             .kv_pages_total = s.kv.total,
                             .kv_pages_held = s.kv.held,
                             .kv_pages_cached = s.kv.cached,
                             .kv_pages_free = s.kv.free,
                             .kv_pages_passed = s.kv.passed,
                             .kv_pages_branched = s.branched_pages,
                             .kv_window_pages_total = s.kv.window_total,
                             .kv_window_pages_held = s.kv.window_held,
                             .kv_window_pages_cached = s.kv.window_idle,
                             .kv_window_pages_passed = s.kv.window_passed,
                             .kv_window_pages_evicted = s.kv.window_evictions,
                             .prefix_query_tokens = s.kv.prefix_queries,
                             .prefix_hit_tokens = s.kv.prefix_hits,
                             .pinned_prompts = s.pins.prompts,
                             .pinned_pages = s.pins.pages,
                             .pinned_pages_most = s.pins.most_pages,
                             .pins = s.pins.pinned,
                             .pin_hits = s.pins.hits,
                             .pins_expired = s.pins.expired,
                             .pins_displaced = s.pins.displaced,
                             .pins_refused = s.pins.refused,
                             .slo_requests = s.slo.requests,
                             .slo_met = s.slo.met,
                             .slo_missed_ttft = s.slo.missed_ttft,
                             .slo_missed_tpot = s.slo.missed_tpot,
                             .slo_refused = s.slo.refused,
                             .slo_promoted = s.slo.promoted,
                             .goodput_tokens = s.slo.goodput_tokens,
                             .token_budget = s.token_budget,
                             .overtakings = s.overtakings,
                             .displaced = s.displaced,
                             .swaps = s.swaps,
                             .swapped_pages = s.swapped_pages,
                             .swap_slots = s.swap_slots,
                             .swap_slots_used = s.swap_slots_used,
                             .swap_page_ms = s.swap_page_s * 1e3,
                             .steps_ahead = s.steps_ahead,
                             .void_rows = s.void_rows,
                             .window = s.window,
                             .step_fixed_ms = s.step_fixed_s * 1e3,
                             .step_token_ms = s.step_token_s * 1e3,
                             .prefix_entries = s.kv.entries,
                             .prefix_evicted_pages = s.kv.evictions,
                             .prefix_expired_pages = s.kv.expirations,
                             .blocked_tokens = s.blocked_tokens,
                             .kv_page_tokens = kPageTokens,
                             .oldest_cached_page_seconds = to_seconds(s.kv.oldest),
                             .reused_page_ages = s.kv.reused_ages,
                             .evicted_page_ages = s.kv.evicted_ages};
  for (std::size_t i = 0; i < kMissReasons; ++i) {
    const std::string_view name = miss_reason_name(static_cast<MissReason>(i));
    if (!name.empty()) stats.prefix_misses.emplace_back(name, s.kv.misses[i]);
  }
  for (const PrefixMiss& miss : s.kv.recent_misses) {
    if (miss.reason == MissReason::kNone) continue;
    stats.recent_prefix_misses.push_back({miss_reason_name(miss.reason), miss.token});
  }
  return stats;
}

PageMap page_map(const KvPool& pool) {
  constexpr std::int64_t kCells = 512;
  constexpr std::string_view kStates = "fcus";  // the later stands out
  const std::int64_t pages = pool.stats().total, cells = std::min(kCells, pages);
  PageMap map{.cells = std::string(static_cast<std::size_t>(cells), kStates.front())};
  for (std::int64_t page = 0; page < pages; ++page) {
    const char state = pool.state(static_cast<PageId>(page));
    if (state == 's') ++map.shared;
    char& cell = map.cells[static_cast<std::size_t>(page * cells / pages)];
    if (kStates.find(state) > kStates.find(cell)) cell = state;
  }
  return map;
}

EngineSchedulerStats encoder_stats(std::string_view model, const EncoderRunner& encoder) {
  return {.model = std::string(model),
          .waiting = static_cast<int>(encoder.waiting()),
          .steps = encoder.steps(),
          .prompt_tokens = encoder.tokens()};
}

void add_disk_stats(EngineSchedulerStats& stats, const DiskTierStats& disk) {
  stats.disk_tier = true;
  stats.disk_saved_pages = disk.saved_pages;
  stats.disk_restored_pages = disk.restored_pages;
  stats.disk_files = disk.store.files;
  stats.disk_bytes = disk.store.bytes;
  stats.disk_damaged_files = disk.store.damaged;
  stats.disk_failed_writes = disk.store.failed_writes;
}

}  // namespace mlxs
