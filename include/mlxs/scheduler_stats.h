// What the scheduler and the KV cache of one model have done and hold: counts since the model was loaded,
// and how things stood after the last step. Engine::scheduler_stats() gives one of them a model; a copy, of
// no thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mlxs/admission_window.h"
#include "mlxs/observer.h"
#include "mlxs/page_ages.h"

namespace mlxs {

// Why a request did not find all of its prompt in the prefix cache: "evicted" or "expired" (it was there),
// "diverged" (at `token`, from what others sent), "new", "window" (layers with a window have lost their
// part).
struct PrefixMissReport {
  std::string_view reason;
  int token = 0;  // position of the first that was not found
};

struct EngineSchedulerStats {
  std::string model;
  int running = 0, waiting = 0, paused = 0;
  int concurrency_limit = 0;  // that run at once, at most
  std::uint64_t steps = 0, admitted = 0, finished = 0, refused = 0, preemptions = 0;
  std::uint64_t prompt_tokens = 0, generated_tokens = 0, cached_prompt_tokens = 0;
  int kv_pages_total = 0, kv_pages_held = 0, kv_pages_cached = 0, kv_pages_free = 0;
  // Given up by running requests because the model's window left them behind; last pages of prompts, copied
  // from equal prompts that run.
  std::uint64_t kv_pages_passed = 0, kv_pages_branched = 0;
  // Of a model that mixes layers with a window and layers without: the former's own pages; held by requests,
  // kept for others that begin alike; given up by running requests, and of the kept taken for others.
  int kv_window_pages_total = 0, kv_window_pages_held = 0, kv_window_pages_cached = 0;
  std::uint64_t kv_window_pages_passed = 0, kv_window_pages_evicted = 0;
  std::uint64_t prefix_query_tokens = 0, prefix_hit_tokens = 0;
  // Pinned prompts: now, and since the start; requests that began with one.
  int pinned_prompts = 0, pinned_pages = 0, pinned_pages_most = 0;
  std::uint64_t pins = 0, pin_hits = 0, pins_expired = 0, pins_displaced = 0, pins_refused = 0;
  // Requests with a target (slo_ttft_ms, slo_tpot_ms) and what became of them.
  std::uint64_t slo_requests = 0, slo_met = 0, slo_missed_ttft = 0, slo_missed_tpot = 0;
  std::uint64_t slo_refused = 0, slo_promoted = 0, goodput_tokens = 0;
  int token_budget = 0;                          // of the last step
  std::uint64_t overtakings = 0, displaced = 0;  // started before one that lacked pages; lost their place in
                                                 // a full queue
  // Preemptions whose pages went to the host, these pages, and its room in pages; a copy of a page takes
  // swap_page_ms.
  std::uint64_t swaps = 0, swapped_pages = 0;
  int swap_slots = 0, swap_slots_used = 0;
  double swap_page_ms = 0;
  int ring_depth = 1;
  // Of the steps: handed to the device while the one before ran, if they may be; rows of steps whose request
  // had ended meanwhile; the host's work on steps that was done while others ran.
  bool runs_ahead = false;
  std::uint64_t steps_ahead = 0, void_rows = 0;
  double hidden_seconds = 0;
  AdmissionWindowStats window;
  double step_fixed_ms = 0, step_token_ms = 0;  // measured: a step takes fixed + tokens * token
  int prefix_entries = 0;                       // prompts in the cache that nobody uses at the moment
  std::uint64_t prefix_evicted_pages = 0, prefix_expired_pages = 0;
  std::vector<std::pair<std::string_view, std::uint64_t>> prefix_misses;  // requests, by reason
  // The disk tier: pages of this model written and brought back; files of all models, bad ones that were
  // found.
  bool disk_tier = false;
  std::uint64_t disk_saved_pages = 0, disk_restored_pages = 0;
  std::uint64_t disk_files = 0, disk_bytes = 0, disk_damaged_files = 0, disk_failed_writes = 0;
  std::vector<PrefixMissReport> recent_prefix_misses;  // the last few, newest first
  // Tokens that the last step could have computed and did not, by what they lacked.
  std::array<std::int64_t, kTokenBlocks> blocked_tokens{};
  int kv_page_tokens = 0;
  // What each KV page is, in at most 512 cells of equally many pages, in the order of their numbers: 's'
  // shared by several sequences, 'u' used by one, 'c' cached, 'f' free; of a cell's pages the first of these
  // that one is. Taken four times a second, and when nothing runs.
  std::string kv_page_map;
  int kv_pages_shared = 0;                // of those that are held; as the map
  double oldest_cached_page_seconds = 0;  // since it was used; 0: none is cached
  PageAges reused_page_ages, evicted_page_ages;
};

}  // namespace mlxs
