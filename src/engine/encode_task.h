// One request to an encoder: its inputs as tokens, and what became of them. Made by the submitting thread;
// the engine thread computes, one consumer takes the result; the mutex guards what both touch.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "base/types.h"
#include "mlxs/engine.h"

namespace mlxs {

struct EncodedInput {
  std::vector<TokenId> tokens;
  std::int32_t first_pair_token = 0;  // where the second text begins; the size if there is none
};

class EncodeTask {
 public:
  explicit EncodeTask(std::vector<EncodedInput> task_inputs);

  const std::vector<EncodedInput> inputs;
  std::size_t begun = 0, done = 0;  // inputs; engine thread only

  // Engine thread. finish() after the last set(); fail() instead, at any time.
  void set(std::size_t input, std::vector<float> values);
  void finish();
  void fail(const Error& error);

  // Consumer.
  void wait();
  std::optional<EncodeResult> try_take();  // throws what fail() was told
  void notify_when_ready(std::function<void()> callback);

 private:
  void end();  // and wakes who waits

  std::mutex mutex_;
  std::condition_variable ready_;
  std::function<void()> waiter_;
  EncodeResult result_;
  std::optional<Error> error_;
  bool ended_ = false;
};

}  // namespace mlxs
