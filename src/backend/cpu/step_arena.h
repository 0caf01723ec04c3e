// The activations of one step: a reservation of address space that memory enters as it is touched, or heaps
// of a pool; growing never moves a tensor. Freed blocks are used again within the step; reset() starts the
// next one. The engine thread only. Memory of an unusually large step goes back to the system some steps
// later (of temporary heaps: at the next reset). The constructor throws kOutOfMemory.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/heap_pool.h"

namespace mlxs::cpu {

class StepArena {
 public:
  explicit StepArena(HeapPool* pool = nullptr);  // outlives the arena
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
    std::byte* data;
    std::size_t bytes;
    bool used;
  };
  std::byte* extend(std::size_t bytes);  // new memory: of the reservation, or of a heap
  void give_heaps_back();

  HeapPool* pool_;
  std::vector<HeapPool::Heap> heaps_;  // of this step
  std::byte* base_ = nullptr;          // of the reservation, or of the last heap
  std::size_t reserved_ = 0;           // bytes of it
  std::size_t end_ = 0;                // of the blocks in it
  std::size_t touched_ = 0;            // highest end_ since memory was last given back
  int small_steps_ = 0;                // steps in a row that needed less than a quarter of it
  std::vector<Block> blocks_;
};

// Heaps of pages that are reserved, and real as far as they were warmed up.
std::unique_ptr<HeapPool> make_heap_pool(const MetalOptimizations::MemoryPool& options);

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
