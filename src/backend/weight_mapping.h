// A file of packed weights as memory. It is mapped first, so that a start reads only what the first step
// needs and processes share it; then it moves into huge pages, piece by piece between steps: a step streams
// through all weights, and from 4 KiB pages they arrive at half the rate (measured in a virtual machine).
// Owned by the weights that lie in it; used by one thread at a time. A failed move leaves a piece where it
// is.
#pragma once

#include <cstddef>
#include <span>

#include "base/thread_pool.h"

namespace mlxs {

class WeightMapping {
 public:
  WeightMapping(int fd, std::size_t bytes);  // !*this if the system refuses, with errno
  ~WeightMapping();
  WeightMapping(const WeightMapping&) = delete;
  WeightMapping& operator=(const WeightMapping&) = delete;

  explicit operator bool() const { return base_ != nullptr; }
  std::span<std::byte> span() const { return {base_, bytes_}; }

  // Whether moving makes sense: the system gives huge pages, and memory that cannot be given back is to be
  // had
  // (`available` bytes: twice what the weights take). MLXS_CPU_HUGE_PAGES=off forbids it.
  bool can_move(std::size_t available) const;
  // Moves some `bytes` more, on the pool; addresses and contents stay. False: nothing is left to move.
  // Nobody may read the weights meanwhile.
  bool move(ThreadPool& pool, std::size_t bytes);

 private:
  std::byte* base_ = nullptr;  // at a huge page's boundary
  std::size_t bytes_ = 0;
  std::size_t moved_ = 0;
};

}  // namespace mlxs
