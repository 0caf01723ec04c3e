// One request to an encoder: its inputs as tokens, and what became of them. Made by the submitting thread;
// the engine thread computes, one consumer takes the result; the mutex guards what both touch.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "engine/timeline.h"
#include "mlxs/engine.h"

namespace mlxs {

struct EncodedInput {
  std::vector<TokenId> tokens;
  std::int32_t first_pair_token = 0;  // where the second text begins; the size if there is none
};

// Whose request it is, since when, and who wants to hear of its end.
struct EncodeOrigin {
  std::string request_id, user;
  TimelineRecorder timeline;
  std::function<void(RequestTimeline)> on_ended = {};
};

class EncodeTask {
 public:
  EncodeTask(std::vector<EncodedInput> task_inputs, EncodeOrigin task_origin);

  const std::vector<EncodedInput> inputs;
  // Engine thread only.
  std::size_t begun = 0, done = 0;  // inputs
  int computed = 0, in_step = 0;    // tokens: of the steps so far, of the one that is being told
  bool failed = false;
  EncodeOrigin origin;
  int tokens() const;  // of all inputs
  // Tells on_ended, and returns what it was told. Once.
  RequestTimeline tell_end(std::string_view model, std::string_view reason, std::string_view error,
                           TimePoint now);

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
