#include "backend/cpu/step_arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

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

StepArena::StepArena() {
  for (reserved_ = kReserve; reserved_ >= kSmallest; reserved_ /= 2) {
    void* address = ::mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (address == MAP_FAILED) continue;
    base_ = static_cast<std::byte*>(address);
    blocks_.reserve(64);
    return;
  }
  throw Error(ErrorCode::kOutOfMemory, "the system refuses 1 GiB of address space for activations",
              "raise the limit of address space (ulimit -v)");
}

StepArena::~StepArena() { ::munmap(base_, reserved_); }

void StepArena::reset() {
  small_steps_ = end_ < touched_ / 4 ? small_steps_ + 1 : 0;
  if (small_steps_ == kPatience && touched_ > kKeep) {
    const std::size_t keep = std::max(kKeep, end_);
    ::madvise(base_ + keep, reserved_ - keep, MADV_DONTNEED);
    touched_ = keep;
  }
  blocks_.clear();
  end_ = 0;
}

void* StepArena::allocate(std::size_t bytes) {
  bytes = std::max<std::size_t>((bytes + 63) / 64 * 64, 64);
  Block* best = nullptr;
  for (Block& block : blocks_) {
    if (!block.used && block.bytes >= bytes && (best == nullptr || block.bytes < best->bytes)) best = &block;
  }
  if (best == nullptr) {
    if (bytes > reserved_ - end_) {
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("a step needs {} MiB more activations than the {} GiB of address space it has",
                              bytes >> 20, reserved_ >> 30),
                  "use fewer tokens a step, or raise the limit of address space (ulimit -v)");
    }
    blocks_.push_back({end_, bytes, false});
    end_ += bytes;
    touched_ = std::max(touched_, end_);
    best = &blocks_.back();
  }
  best->used = true;
  return base_ + best->offset;
}

void StepArena::release(const void* block) {
  for (Block& candidate : blocks_) {
    if (base_ + candidate.offset == block) candidate.used = false;
  }
}

}  // namespace mlxs::cpu
