#include "backend/cpu/step_arena.h"

#include <gtest/gtest.h>

#include <cstring>

#include "backend/cpu/machine.h"

namespace mlxs::cpu {
namespace {

TEST(StepArena, BlocksAreAlignedApartAndUsedAgain) {
  StepArena arena;
  float* a = arena.floats(100);
  float* b = arena.floats(1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b) % 64, 0u);
  EXPECT_GE(b, a + 100);
  arena.release(a);
  EXPECT_NE(arena.floats(101 * 16), a);  // too large for it
  EXPECT_EQ(arena.floats(50), a);
  EXPECT_NE(arena.floats(50), a);  // taken again
}

TEST(StepArena, ResetForgetsAllBlocks) {
  StepArena arena;
  void* first = arena.allocate(1000);
  arena.allocate(5000);
  arena.reset();
  EXPECT_EQ(arena.allocate(3000), first);
}

TEST(StepArena, ReleaseIgnoresStrangers) {
  StepArena arena;
  int local = 0;
  arena.release(nullptr);
  arena.release(&local);
  void* block = arena.allocate(64);
  arena.release(block);
  arena.release(block);
  EXPECT_EQ(arena.allocate(64), block);
  EXPECT_NE(arena.allocate(64), block);
}

TEST(StepArena, EmptyBlocksAreDistinct) {
  StepArena arena;
  void* a = arena.allocate(0);
  EXPECT_NE(a, nullptr);
  EXPECT_NE(arena.allocate(0), a);
}

// After one large step and many small ones the memory goes back: fresh pages read as zeros.
TEST(StepArena, GivesMemoryOfRareLargeStepsBack) {
  constexpr std::size_t kLarge = std::size_t{64} << 20;
  StepArena arena;
  auto* large = static_cast<char*>(arena.allocate(kLarge));
  std::memset(large, 1, kLarge);
  for (int step = 0; step < 100; ++step) {
    arena.reset();
    arena.allocate(1 << 20);
  }
  EXPECT_EQ(large[0], 1);
  EXPECT_EQ(large[kLarge - 1], 0);
}

TEST(Machine, FiguresArePlausible) {
  EXPECT_GE(default_threads(), 1);
  EXPECT_LE(default_threads(), 16);
  const MemoryInfo memory = memory_info();
  EXPECT_GT(memory.total, std::size_t{64} << 20);
  EXPECT_GT(memory.available, 0u);
  EXPECT_LE(memory.available, memory.total);
}

}  // namespace
}  // namespace mlxs::cpu
