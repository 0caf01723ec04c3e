// The stream of one request from the engine thread to its consumer: bounded, so that a slow reader slows only
// itself. Producer: the engine thread; consumer: one thread at a time. Shared by both; closed by the last
// (done or error) chunk. Crossing the high-water mark tells the producer to pause the request; draining to
// half tells it to resume. A ring that grows to what its reader leaves in it: no allocation in the steady
// state.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "mlxs/engine.h"

namespace mlxs {

class TokenChannel {
 public:
  static constexpr std::size_t kHighWater =
      64;  // chunks; one more per step may follow before the pause takes effect

  // on_drained: called by the consumer's thread when a full channel has emptied to half.
  explicit TokenChannel(std::function<void()> on_drained) : on_drained_(std::move(on_drained)) {}

  // Producer. True: the channel is full now, pause the request. A done or error chunk ends the stream.
  bool push(Chunk chunk);

  // Consumer.
  std::optional<Chunk> pop_blocking();
  Generator::Poll try_pop(Chunk& out);
  void notify_when_ready(std::function<void()> callback);
  bool ended() const;  // the last chunk was pushed
  bool full() const;   // and has not emptied to half since

 private:
  // Takes the front; returns whether on_drained_ is due. Lock held, as for the next.
  bool take(Chunk& out);
  void append(Chunk&& chunk);

  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<Chunk> ring_;
  std::size_t begin_ = 0, size_ = 0;
  std::function<void()> waiter_;
  std::function<void()> on_drained_;
  bool full_ = false;
  bool ended_ = false;
};

}  // namespace mlxs
