// The activations of one step: a reservation of address space that memory enters as it is touched, so that
// growing never moves a tensor. Freed blocks are used again within the step; reset() starts the next one. The
// engine thread only. Memory of an unusually large step goes back to the system some steps later. The
// constructor throws kOutOfMemory.
#pragma once

#include <cstddef>
#include <vector>

namespace mlxs::cpu {

class StepArena {
 public:
  StepArena();
  ~StepArena();
  StepArena(const StepArena&) = delete;
  StepArena& operator=(const StepArena&) = delete;

  void reset();
  // 64-byte aligned; lives until release() or reset(). Throws kOutOfMemory if the reservation is used up.
  void* allocate(std::size_t bytes);
  float* floats(std::size_t count) { return static_cast<float*>(allocate(count * sizeof(float))); }
  void release(const void* block);  // nullptr, or a block that is not ours or free already: nothing happens

 private:
  struct Block {
    std::size_t offset, bytes;
    bool used;
  };
  std::byte* base_ = nullptr;
  std::size_t reserved_ = 0;
  std::size_t end_ = 0;      // of the blocks
  std::size_t touched_ = 0;  // highest end_ since memory was last given back
  int small_steps_ = 0;      // steps in a row that needed less than a quarter of it
  std::vector<Block> blocks_;
};

// A block that is freed at the end of the scope.
class ScratchBlock {
 public:
  ScratchBlock(StepArena& arena, std::size_t bytes) : arena_(arena), data_(arena.allocate(bytes)) {}
  ~ScratchBlock() { arena_.release(data_); }
  ScratchBlock(const ScratchBlock&) = delete;
  ScratchBlock& operator=(const ScratchBlock&) = delete;
  void* data() const { return data_; }

 private:
  StepArena& arena_;
  void* data_;
};

}  // namespace mlxs::cpu
