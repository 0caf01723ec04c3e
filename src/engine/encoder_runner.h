// Runs an encoder: inputs of all waiting requests, taken in turns so that a long list does not keep a short
// one waiting, fill one ragged step after the other. Owns the keys and values of a step; engine thread only.
// A failed step ends the requests that had a part in it.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "backend/ops.h"
#include "engine/encode_task.h"
#include "models/encoder.h"

namespace mlxs {

class EncoderRunner {
 public:
  // Both outlive the runner. token_budget: of one step; a longer input gets a
  // step of its own.
  EncoderRunner(Backend& backend, Encoder& model, std::int32_t token_budget);

  void submit(std::shared_ptr<EncodeTask> task) { waiting_.push_back(std::move(task)); }
  void cancel(const EncodeTask& task);
  bool step();  // false: nothing waits
  void end_all(const Error& error);
  std::size_t waiting() const { return waiting_.size(); }
  std::size_t kv_bytes() const { return kv_->bytes(); }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t tokens() const { return tokens_done_; }

 private:
  struct Part {
    std::shared_ptr<EncodeTask> task;
    std::size_t input;
    std::int32_t first_row;
  };
  void plan();
  void add(const std::shared_ptr<EncodeTask>& task);
  void run();
  std::vector<float> pooled(std::span<const float> rows) const;  // [tokens, hidden] → what the client gets

  Backend& backend_;
  Encoder& model_;
  std::int32_t token_budget_;
  std::unique_ptr<KvStore> kv_;
  std::deque<std::shared_ptr<EncodeTask>> waiting_;  // with inputs that no step has had
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
