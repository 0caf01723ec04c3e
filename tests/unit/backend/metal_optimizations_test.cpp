// The parts of metal_optimizations by themselves: heaps, copies, places for steps.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <latch>

#include "backend/command_ring.h"
#include "backend/copy_queue.h"
#include "backend/cpu/step_arena.h"
#include "backend/heap_pool.h"
#include "backend/metal_options.h"
#include "backend/registry.h"

namespace mlxs {
namespace {

// ---------------------------------------------------------------- heaps

struct Counted {
  int made = 0, gone = 0;
  std::size_t touched = 0;
  HeapPool::Memory memory() {
    return {.allocate =
                [this](std::size_t bytes) {
                  ++made;
                  return static_cast<std::byte*>(std::malloc(bytes));
                },
            .free =
                [this](std::byte* data, std::size_t) {
                  ++gone;
                  std::free(data);
                },
            .touch = [this](std::byte*, std::size_t bytes) { touched += bytes; }};
  }
};
MetalOptimizations::MemoryPool heaps(int count) {
  return {.enabled = true, .heap_size_mb = 64, .num_heaps = count, .warmup_sizes_mb = {16, 128}};
}

TEST(HeapPool, CountsWhatIsTakenAndGivenBack) {
  Counted counted;
  {
    HeapPool pool(heaps(4), counted.memory());
    EXPECT_EQ(counted.touched, std::size_t{4 * (16 + 64)} << 20);  // no more than a heap has
    EXPECT_EQ(pool.stats().pool_size, 4);
    EXPECT_EQ(pool.stats().available_count, 4);
    const HeapPool::Heap heap = pool.acquire();
    EXPECT_EQ(heap.bytes, std::size_t{64} << 20);
    EXPECT_EQ(pool.stats().total_acquired, 1u);
    EXPECT_EQ(pool.stats().available_count, 3);
    EXPECT_DOUBLE_EQ(pool.stats().utilization(), 0.25);
    pool.release(heap);
    pool.release(heap);  // twice, and what is not ours: nothing happens
    pool.release({});
    std::byte stranger{};
    pool.release({.data = &stranger, .bytes = 1});
    EXPECT_EQ(pool.stats().total_released, 1u);
    EXPECT_EQ(pool.stats().available_count, 4);
    pool.reset_stats();
    EXPECT_EQ(pool.stats().total_acquired, 0u);
    EXPECT_EQ(pool.stats().pool_size, 4);
  }
  EXPECT_EQ(counted.made, 4);
  EXPECT_EQ(counted.gone, 4);
}

TEST(HeapPool, MakesTemporaryOnesWhenNoneIsFree) {
  Counted counted;
  HeapPool pool(heaps(2), counted.memory());
  const std::array taken{pool.acquire(), pool.acquire(), pool.acquire()};
  EXPECT_FALSE(taken[1].temporary);
  EXPECT_TRUE(taken[2].temporary);
  EXPECT_EQ(pool.stats().total_acquired, 2u);
  EXPECT_EQ(pool.stats().exhaustion_events, 1u);
  EXPECT_EQ(pool.stats().fallback_events, 1u);
  for (const HeapPool::Heap& heap : taken) pool.release(heap);
  EXPECT_EQ(pool.stats().total_released, 2u);  // a temporary one is no part of the pool
  EXPECT_EQ(counted.gone, 1);
  const HeapPool::Heap large = pool.acquire(std::size_t{65} << 20);
  EXPECT_TRUE(large.temporary);
  EXPECT_EQ(large.bytes, std::size_t{65} << 20);
  EXPECT_EQ(pool.stats().available_count, 2);
  pool.release(large);
}

TEST(HeapPool, StatisticsCanBeOff) {
  Counted counted;
  MetalOptimizations::MemoryPool options = heaps(2);
  options.track_statistics = false;
  HeapPool pool(options, counted.memory());
  pool.release(pool.acquire());
  EXPECT_EQ(pool.stats().total_acquired, 0u);
  EXPECT_EQ(pool.stats().total_released, 0u);
}

// Blocks of a step in heaps: apart, used again, in a temporary heap where the pool ends, given back by
// reset().
TEST(HeapPool, HoldsTheStepArena) {
  Counted counted;
  HeapPool pool(heaps(2), counted.memory());
  cpu::StepArena arena(&pool);
  constexpr std::size_t kPart = std::size_t{40} << 20;
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(static_cast<std::byte*>(arena.allocate(kPart)));
  for (const std::byte* a : blocks) {
    for (const std::byte* b : blocks) EXPECT_TRUE(a == b || a + kPart <= b || b + kPart <= a);
  }
  EXPECT_EQ(pool.stats().fallback_events, 1u);
  const auto* rest = static_cast<std::byte*>(arena.allocate(std::size_t{20} << 20));
  EXPECT_TRUE(rest == blocks[0] + kPart || rest == blocks[1] + kPart);  // what a heap has left
  arena.reset();
  EXPECT_EQ(pool.stats().available_count, 2);
  EXPECT_EQ(counted.gone, 1);
  arena.allocate(kPart);
  EXPECT_EQ(pool.stats().total_acquired, 3u);
}

// ---------------------------------------------------------------- copies

std::span<const std::byte> bytes_of(const std::vector<int>& values) {
  return std::as_bytes(std::span(values));
}
std::span<std::byte> bytes_of(std::vector<int>& values) { return std::as_writable_bytes(std::span(values)); }

TEST(CopyQueue, CopiesBothWaysInOrder) {
  CopyQueue queue({.enabled = true});
  const std::vector<int> from{1, 2, 3};
  std::vector<int> device(5, 0), back(2, 0);
  EXPECT_EQ(queue.upload(bytes_of(from), bytes_of(device), 2 * sizeof(int)), 1u);
  EXPECT_EQ(queue.download(std::as_bytes(std::span(device)), 3 * sizeof(int), bytes_of(back)), 2u);
  EXPECT_TRUE(queue.wait(2));
  EXPECT_TRUE(queue.completed(1));
  EXPECT_EQ(device, (std::vector<int>{0, 0, 1, 2, 3}));
  EXPECT_EQ(back, (std::vector<int>{2, 3}));
  const BlitQueueStats stats = queue.stats();
  EXPECT_EQ(stats.total_uploads, 1u);
  EXPECT_EQ(stats.total_downloads, 1u);
  EXPECT_EQ(stats.uploaded_bytes, 3 * sizeof(int));
  EXPECT_GE(stats.overlap_ratio(), 0.0);
  EXPECT_LE(stats.overlap_ratio(), 1.0);
  queue.reset_stats();
  EXPECT_EQ(queue.stats().total_uploads, 0u);
}

TEST(CopyQueue, RefusesWhatDoesNotFit) {
  CopyQueue queue({.enabled = true});
  const std::vector<int> from{1, 2, 3};
  std::vector<int> device(3, 0);
  EXPECT_THROW(queue.upload({}, bytes_of(device)), Error);
  EXPECT_THROW(queue.upload(bytes_of(from), {}), Error);
  EXPECT_THROW(queue.upload(bytes_of(from), bytes_of(device), 1), Error);
  EXPECT_THROW(queue.upload(bytes_of(from), bytes_of(device), SIZE_MAX), Error);
  EXPECT_THROW(queue.download(bytes_of(from), 4, bytes_of(device)), Error);
  EXPECT_FALSE(queue.wait(1));  // there is none
  EXPECT_FALSE(queue.completed(1));
}

TEST(CopyQueue, WaitsTimeOutAndAFullQueueHoldsTheCaller) {
  CopyQueue queue({.enabled = true, .max_pending_ops = 2});
  const std::vector<int> from{1};
  std::vector<int> device(1, 0);
  std::latch open(1);
  queue.upload(bytes_of(from), bytes_of(device), 0, [&](std::uint64_t) { open.wait(); });
  EXPECT_FALSE(queue.wait(1, 1));
  queue.upload(bytes_of(from), bytes_of(device));
  std::atomic<bool> third = false;
  std::thread caller([&] {
    queue.upload(bytes_of(from), bytes_of(device));
    third = true;
  });
  EXPECT_FALSE(queue.wait(2, 1));
  EXPECT_FALSE(third);  // the first cannot end before the latch opens
  open.count_down();
  caller.join();
  queue.wait_all();
  EXPECT_TRUE(queue.completed(3));
  EXPECT_EQ(queue.stats().total_uploads, 3u);
  EXPECT_GE(queue.stats().sync_wait_count, 2u);
}

TEST(CopyQueue, WithoutEventsEachCopyIsWaitedFor) {
  CopyQueue queue({.enabled = true, .use_shared_events = false});
  const std::vector<int> from{7};
  std::vector<int> device(1, 0);
  const std::uint64_t id = queue.upload(bytes_of(from), bytes_of(device));
  EXPECT_TRUE(queue.completed(id));
  EXPECT_EQ(device, from);
}

// ---------------------------------------------------------------- places for steps

TEST(CommandRing, HandsPlacesOutInTurn) {
  CommandRing ring({.enabled = true, .ring_size = 3});
  EXPECT_EQ(ring.acquire(), 0);
  EXPECT_EQ(ring.acquire(), 1);
  ring.release(0);
  ring.release(0);
  EXPECT_EQ(ring.acquire(), 2);
  EXPECT_EQ(ring.acquire(), 0);
  ring.release(2);
  EXPECT_EQ(ring.acquire(), 2);  // the only one that is free
  const CommandBufferRingStats stats = ring.stats();
  EXPECT_EQ(stats.ring_size, 3);
  EXPECT_EQ(stats.in_flight_count, 3);
  EXPECT_EQ(stats.available_count, 0);
  EXPECT_EQ(stats.total_acquired, 5u);
  EXPECT_EQ(stats.total_released, 2u);
  EXPECT_EQ(stats.wait_events, 0u);
}

TEST(CommandRing, WaitsForAPlaceAndGivesUpInTime) {
  CommandRing ring({.enabled = true, .ring_size = 2, .timeout_ms = 1});
  ring.acquire();
  ring.acquire();
  try {
    ring.acquire();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  }
  EXPECT_EQ(ring.stats().wait_events, 1u);
  EXPECT_EQ(ring.stats().timeout_events, 1u);
  EXPECT_GT(ring.stats().max_wait_time_us, 0);
  ring.release(0);
  ring.release(1);
  ring.wait_all();
}

// ---------------------------------------------------------------- options

TEST(MetalOptimizations, RangesAreNamed) {
  const auto refusal = [](auto change) -> std::string {
    MetalOptimizations options;
    change(options);
    try {
      validate(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_EQ(refusal([](auto& o) { o.memory_pool.heap_size_mb = 63; }),
            "metal_optimizations.memory_pool.heap_size_mb is 63, not 64 … 2048");
  EXPECT_EQ(refusal([](auto& o) { o.memory_pool.num_heaps = 17; }),
            "metal_optimizations.memory_pool.num_heaps is 17, not 2 … 16");
  EXPECT_EQ(refusal([](auto& o) { o.command_buffer_ring.ring_size = 4; }),
            "metal_optimizations.command_buffer_ring.ring_size is 4, not 2 … 3");
  EXPECT_NE(refusal([](auto& o) { o.blit_queue.queue_priority = 3; }), "");
  EXPECT_NE(refusal([](auto& o) { o.fallback_log_level = "loud"; }), "");
}

TEST(MetalOptimizations, WhatABackendCannotHaveIsLeftOutOrRefused) {
  MetalOptimizations options{.enabled = true};
  options.blit_queue.enabled = true;
  options.memory_pool = heaps(2);
  const auto backend = make_backend("cpu", {.threads = 1, .optimizations = options});
  EXPECT_TRUE(backend->optimization_stats().memory_pool.enabled);
  EXPECT_FALSE(backend->optimization_stats().blit_queue.enabled);
  options.graceful_fallback = false;
  EXPECT_THROW(make_backend("cpu", {.threads = 1, .optimizations = options}), Error);
  options.enabled = false;
  EXPECT_FALSE(make_backend("cpu", {.threads = 1, .optimizations = options})
                   ->optimization_stats()
                   .memory_pool.enabled);
}

}  // namespace
}  // namespace mlxs
