// What the engine tells the outside of its work: one call a request and one a step. telemetry/ turns it into
// metrics. Calls come from the engine thread (requests also from the submitting thread); they must not block
// or throw.
#pragma once

#include <cstdint>
#include <string_view>

namespace mlxs {

struct RequestRecord {
  std::string_view model;
  std::string_view request_id;
  std::string_view user;
  std::string_view finish;  // "stop", "length", "cancelled", "error"
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;
  int generated_tokens = 0;
  double queue_seconds = 0;
  double ttft_seconds = 0;  // 0 if no token came
  double e2e_seconds = 0;
};

struct StepRecord {
  std::string_view model;
  int prefill_tokens = 0;
  int decode_rows = 0;
  double plan_seconds = 0;
  double run_seconds = 0;     // the backend's part
  double commit_seconds = 0;  // sampling results → channels
};

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void on_first_token(std::string_view model, double ttft_seconds) = 0;
  virtual void on_inter_token(std::string_view model, double seconds) = 0;
  virtual void on_finished(const RequestRecord& record) = 0;
  virtual void on_step(const StepRecord& record) = 0;
};

}  // namespace mlxs
