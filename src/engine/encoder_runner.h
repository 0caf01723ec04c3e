// Runs an encoder: inputs of all waiting requests, taken in turns so that neither a long list nor a tenant
// with many requests keeps others waiting, fill one ragged step after the other. Owns the keys and values of
// a step; engine thread only. A failed step ends the requests that had a part in it.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"
#include "base/clock.h"
#include "engine/encode_task.h"
#include "mlxs/observer.h"
#include "models/encoder.h"

namespace mlxs {

struct EncoderSettings {
  std::string model;                         // its name, for who observes
  std::int32_t token_budget;                 // of one step; a longer input gets a step of its own
  std::size_t max_queue_depth;               // requests that may wait; more are refused
  const Clock& clock;                        // outlives the runner
  std::shared_ptr<EngineObserver> observer;  // may be null
};

class EncoderRunner {
 public:
  // Both outlive the runner.
  EncoderRunner(Backend& backend, Encoder& model, EncoderSettings settings);

  void submit(const std::shared_ptr<EncodeTask>& task);
  void cancel(const EncodeTask& task);
  bool step();  // false: nothing waits
  void end_all(const Error& error);
  std::size_t waiting() const;  // requests
  std::size_t kv_bytes() const { return kv_->bytes(); }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t tokens() const { return tokens_done_; }

 private:
  struct Part {
    std::shared_ptr<EncodeTask> task;
    std::size_t input;
    std::int32_t first_row;
  };
  struct Turn {  // of a tenant that waits
    std::string user;
    std::deque<std::shared_ptr<EncodeTask>> tasks;
  };
  void wait(std::shared_ptr<EncodeTask> task);  // at the end of its tenant's
  void plan(TimePoint now);
  void add(const std::shared_ptr<EncodeTask>& task);
  void run();
  void note_shares(const StepShare& share);
  void end_step_parts(const Error& failure);
  void tell_end(EncodeTask& task, std::string_view reason, std::string_view error);
  void tell_step(TimePoint started, TimePoint planned, TimePoint ran, bool failed);
  std::vector<float> pooled(std::span<const float> rows) const;  // [tokens, hidden] → what the client gets

  Backend& backend_;
  Encoder& model_;
  EncoderSettings settings_;
  std::int32_t token_budget_;
  std::unique_ptr<KvStore> kv_;
  std::deque<Turn> turns_;  // with inputs that no step has had; the next one first
  QueueClock queue_clock_;
  // Of the step that is being made; reused.
  std::vector<Part> parts_;
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> positions_, position_rows_;
  std::vector<std::vector<PageId>> pages_;
  std::vector<SequenceSpan> sequences_;
  std::vector<float> hidden_;
  std::int32_t pages_used_ = 0;
  std::uint64_t steps_ = 0, tokens_done_ = 0;
};

}  // namespace mlxs
