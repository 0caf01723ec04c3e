// Where the time of one request went, told when it has ended (GenerateParams::on_ended). Plain values;
// durations in seconds, moments in seconds since the request was received. The parts follow one another
// without a gap or an overlap, so their sum is total_seconds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

enum class RequestPart : std::uint8_t {
  kPrepare,    // received → the engine was asked: reading, parsing, admission
  kTokenize,   // chat template and tokenizer
  kGrammar,    // structured output: its grammar
  kQueue,      // for a place, and pages for its prompt
  kBudget,     // has both, but the steps' tokens went to others
  kPrefill,    // its prompt is computed
  kDecode,     // token after token
  kPaused,     // nobody took what was there already
  kPreempted,  // lost its pages and waits to get them back
  kRecompute,  // computes them again
};
inline constexpr std::size_t kRequestParts = 10;
inline constexpr std::array<std::string_view, kRequestParts> kRequestPartNames{
    "prepare", "tokenize", "grammar", "queue",     "budget",
    "prefill", "decode",   "paused",  "preempted", "recompute"};

// Another request, as this one met it.
struct RequestSeen {
  std::string request_id, user;
  int prompt_tokens = 0;
};

// By what claim another request got a place while this one waited.
enum class Claim : std::uint8_t {
  kEarlier,   // it came first
  kPriority,  // a better tier
  kAge,       // a worse tier, but it had waited for so long
  kFairness,  // its tenant had got less
  kDeadline,  // else its target would have been missed
  kReturned,  // it had had a place and lost it
  kFits,      // too few KV pages were free for those before it, but enough for it
};
inline constexpr std::size_t kClaims = 7;
inline constexpr std::array<std::string_view, kClaims> kClaimNames{"earlier",  "priority", "age", "fairness",
                                                                   "deadline", "returned", "fits"};

struct WentFirst {
  struct Request {
    RequestSeen who;
    double at_seconds = 0;
    Claim claim{};
  };
  int total = 0;
  std::array<int, kClaims> by_claim{};
  int older = 0;               // of the total: too long ago to know their claims
  std::vector<Request> named;  // the first few of the others
};

struct PrefillChunkRecord {
  double at_seconds = 0, seconds = 0;
  std::uint64_t step = 0;
  int start = 0, tokens = 0;  // of the prompt; what stands before the first chunk came from the cache
  int other_tokens = 0;       // of other requests in the same step
};

struct PreemptionRecord {
  double at_seconds = 0;
  RequestSeen for_whom;  // the request itself: it needed one more page and had the least to lose
  int lost_tokens = 0;   // prompt and answer so far: what to compute again, but for what the cache kept
};

struct RequestTimeline {
  std::string request_id, model, user;
  std::string finish;  // "stop", "length", "cancelled", "error"
  std::string error;   // what went wrong, if something did
  int prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  std::string prefix_miss;    // why the prompt was not cached as a whole: "evicted", "expired", "diverged",
                              // "new", "window"; empty: it was
  int prefix_miss_token = 0;  // the first that was not found; if "diverged", where other prompts went on
                              // differently
  double ttft_seconds = 0;    // 0: no token came
  double total_seconds = 0;
  std::array<double, kRequestParts> parts{};
  double mask_seconds = 0;  // computing which tokens its grammar allows: within the other parts

  int running_ahead = 0, waiting_ahead = 0;         // when it was queued
  std::vector<RequestSeen> seen_running;            // of these, the first few
  WentFirst went_first;                             // got a place before it did
  double no_slot_seconds = 0, no_page_seconds = 0;  // of the queue part: what its head lacked

  std::vector<PrefillChunkRecord> chunks;  // the first few
  int chunks_omitted = 0;
  std::vector<PreemptionRecord> preemptions;  // the first few
  int preemptions_omitted = 0;
  int pauses = 0;

  // Between two of its tokens: nearest-rank percentiles.
  double itl_p50_seconds = 0, itl_p95_seconds = 0, itl_p99_seconds = 0, itl_max_seconds = 0;
  int slowest_token = 0;           // which came after itl_max_seconds; 0: there is none
  int slowest_prefill_tokens = 0;  // of others, in the step that made it
};

}  // namespace mlxs
