// Computes the masks of the rows that a grammar binds while the model runs: they are needed only when it
// samples. Owns its threads, which sleep between steps; one caller (the engine thread). A mask that cannot be
// computed allows nothing, which ends its request, never the step.
#pragma once

#include <condition_variable>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace mlxs {

struct Request;

class MaskPool {
 public:
  MaskPool(int threads, const Clock& clock);  // the caller of finish() helps, too
  ~MaskPool();
  MaskPool(const MaskPool&) = delete;
  MaskPool& operator=(const MaskPool&) = delete;

  // Begins with the next masks of these requests, which nobody else touches until finish() has returned.
  void begin(std::span<Request* const> rows);
  void finish();

 private:
  void work();
  bool compute_next(std::unique_lock<std::mutex>& lock);  // false: none is left to begin with

  const Clock& clock_;
  std::mutex mutex_;  // guards what follows; not held while a mask is computed
  std::condition_variable more_, done_;
  std::vector<Request*> rows_;
  std::size_t next_ = 0, open_ = 0;  // the first that nobody has begun; how many are not finished
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mlxs
