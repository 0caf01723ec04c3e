#include "backend/cpu/step_arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

#ifndef MLXS_ARENA_BITS  // emulators that keep a record of every reserved page want less (tests/arm)
#define MLXS_ARENA_BITS 40
#endif
constexpr std::size_t kReserve = std::size_t{1} << MLXS_ARENA_BITS;  // address space, not memory
constexpr std::size_t kSmallest = std::size_t{1} << 30;
constexpr std::size_t kKeep = std::size_t{16} << 20;  // less than this is not worth giving back
constexpr int kPatience = 64;                         // small steps before memory goes back

#ifdef MAP_NORESERVE
constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#else
constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
#endif

}  // namespace

std::unique_ptr<HeapPool> make_heap_pool(const MetalOptimizations::MemoryPool& options) {
  const auto allocate = [](std::size_t bytes) {
    void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (address == MAP_FAILED) {
      throw Error(ErrorCode::kOutOfMemory, fmt::format("the system refuses a heap of {} MiB", bytes >> 20),
                  "lower metal_optimizations.memory_pool.heap_size_mb or num_heaps");
    }
#ifdef MADV_HUGEPAGE
    ::madvise(address, bytes, MADV_HUGEPAGE);  // advice: fewer faults and misses where the system has them
#endif
    return static_cast<std::byte*>(address);
  };
  return std::make_unique<HeapPool>(
      options, HeapPool::Memory{
                   .allocate = allocate,
                   .free = [](std::byte* data, std::size_t bytes) { ::munmap(data, bytes); },
                   .touch = [](std::byte* data, std::size_t bytes) { std::memset(data, 0, bytes); },
               });
}

StepArena::StepArena(HeapPool* pool) : pool_(pool) {
  blocks_.reserve(64);
  if (pool_ != nullptr) return;
  for (reserved_ = kReserve; reserved_ >= kSmallest; reserved_ /= 2) {
    void* address = ::mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (address == MAP_FAILED) continue;
    base_ = static_cast<std::byte*>(address);
    return;
  }
  throw Error(ErrorCode::kOutOfMemory, "the system refuses 1 GiB of address space for activations",
              "raise the limit of address space (ulimit -v)");
}

StepArena::~StepArena() {
  if (pool_ == nullptr) ::munmap(base_, reserved_);
  give_heaps_back();
}

void StepArena::give_heaps_back() {
  for (const HeapPool::Heap& heap : heaps_) pool_->release(heap);
  heaps_.clear();
}

void StepArena::reset() {
  blocks_.clear();
  if (pool_ != nullptr) {
    give_heaps_back();
    reserved_ = end_ = 0;
    return;
  }
  small_steps_ = end_ < touched_ / 4 ? small_steps_ + 1 : 0;
  if (small_steps_ == kPatience && touched_ > kKeep) {
    const std::size_t keep = std::max(kKeep, end_);
    ::madvise(base_ + keep, reserved_ - keep, MADV_DONTNEED);
    touched_ = keep;
  }
  end_ = 0;
}

std::byte* StepArena::extend(std::size_t bytes) {
  if (bytes > reserved_ - end_) {
    if (pool_ == nullptr) {
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("a step needs {} MiB more activations than the {} GiB of address space it has",
                              bytes >> 20, reserved_ >> 30),
                  "use fewer tokens a step, or raise the limit of address space (ulimit -v)");
    }
    if (end_ < reserved_) blocks_.push_back({base_ + end_, reserved_ - end_, false});  // for smaller ones
    heaps_.push_back(pool_->acquire(bytes));
    base_ = heaps_.back().data;
    reserved_ = heaps_.back().bytes;
    end_ = 0;
  }
  std::byte* const data = base_ + end_;
  end_ += bytes;
  touched_ = std::max(touched_, end_);
  return data;
}

void* StepArena::allocate(std::size_t bytes) {
  bytes = std::max<std::size_t>((bytes + 63) / 64 * 64, 64);
  Block* best = nullptr;
  for (Block& block : blocks_) {
    if (!block.used && block.bytes >= bytes && (best == nullptr || block.bytes < best->bytes)) best = &block;
  }
  if (best == nullptr) {
    std::byte* const data = extend(bytes);
    best = &blocks_.emplace_back(Block{data, bytes, false});
  }
  best->used = true;
  return best->data;
}

void StepArena::release(const void* block) {
  for (Block& candidate : blocks_) {
    if (candidate.data == block) candidate.used = false;
  }
}

}  // namespace mlxs::cpu
