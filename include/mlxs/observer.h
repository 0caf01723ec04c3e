// What the engine tells the outside of its work: one call a request and one a step. telemetry/ turns it into
// metrics. Calls come from the engine's threads (requests also from the submitting thread), steps and
// requests at once; they must not block or throw. What a call passes is valid only during it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

#include "mlxs/timeline.h"

namespace mlxs {

struct RequestRecord {
  std::string_view model;
  std::string_view request_id;
  std::string_view user;
  std::string_view finish;  // "stop", "length", "cancelled", "error"
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;
  int generated_tokens = 0;
  int max_tokens = 0;  // that it might have generated
  double queue_seconds = 0;
  double ttft_seconds = 0;  // 0 if no token came
  double e2e_seconds = 0;
  double mask_seconds = 0;                           // computing which tokens its grammar allows
  std::array<double, kRequestParts> part_seconds{};  // as its RequestTimeline will have them
};

// Consecutive tokens of one request in a step.
struct StepSpanRecord {
  std::uint64_t request = 0;  // the engine's number of it; see RequestEvent
  std::int32_t start = 0, tokens = 0;
};

// What keeps tokens that could be computed from being part of a step.
enum class TokenBlock : std::uint8_t {
  kSlots,   // their request waits for a place
  kPages,   // … for KV pages
  kWindow,  // … for others to join
  kBudget,  // it has both, and the step is full
  kPaused,  // nobody takes what it has produced
};
inline constexpr std::size_t kTokenBlocks = 5;
inline constexpr std::array<std::string_view, kTokenBlocks> kTokenBlockNames{"slots", "pages", "window",
                                                                             "budget", "paused"};

struct StepRecord {
  std::string_view model;
  std::uint64_t step = 0;  // 1, 2, … of the model
  // Of planning; of one that was planned while the step before ran: when that ended.
  std::chrono::steady_clock::time_point started{};
  int prefill_tokens = 0;
  int decode_rows = 0;
  double plan_seconds = 0;
  double run_seconds = 0;  // the backend's part: of this
  double launch_seconds = 0, sample_seconds = 0, wait_seconds = 0;
  double mask_seconds = 0;    // before the launch: what grammars allow
  double commit_seconds = 0;  // sampling results → channels
  double hidden_seconds = 0;  // of all these: done while another step ran, and counted in none of them
  int running = 0, waiting = 0, paused = 0;  // requests, after it
  int kv_pages_free = 0;
  std::array<std::int64_t, kTokenBlocks> blocked_tokens{};
  std::span<const StepSpanRecord> spans;
  bool failed = false;
};

struct RequestEvent {
  enum class Kind : std::uint8_t { kQueued, kAdmitted, kPreempted, kPaused, kResumed, kEnded };
  std::string_view model;
  std::string_view request_id;  // the client's
  std::uint64_t request = 0;    // the engine's number, unique in the process
  Kind kind{};
  std::chrono::steady_clock::time_point at{};
};

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void on_first_token(std::string_view model, double ttft_seconds) = 0;
  virtual void on_inter_token(std::string_view model, double seconds) = 0;
  virtual void on_finished(const RequestRecord& record) = 0;
  virtual void on_step(const StepRecord& record) = 0;
  virtual void on_request(const RequestEvent&) {}
};

}  // namespace mlxs
