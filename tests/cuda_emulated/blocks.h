// Runs a CUDA kernel's blocks on the CPU, one after the other: every thread of a block is a fiber, and what a
// warp does together (shuffles, tensor core products) or a block (barriers) waits until all have come to it.
// Copies and products that a GPU runs in the background happen when they are waited for, as late as they may.
// For tests of the kernels' arithmetic and of their order; one thread of the process at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace mlxs::emulated {

constexpr int kLanes = 32;

struct Warp {
  int arrived = 0, alive = 0;
  unsigned turn = 0;
  // What the lanes hand over, of this turn and of the one before.
  std::array<std::array<std::array<std::uint64_t, 4>, kLanes>, 2> given{};
};

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};
// Of the right operand: where it starts, and how many bytes on its next eight columns (lines: lines) are, and
// its next 64 columns if it lies in lines.
struct Right {
  unsigned start, step, across;
};
struct Product {
  float* sums;
  const unsigned* left;
  Right right;
  int columns;
  bool first, lines;
};

struct Thread {
  uint3 index{};
  int lane = 0;
  Warp* warp = nullptr;
  std::deque<std::vector<Copy>> copies;  // committed, oldest first
  std::vector<Copy> next_copies;
  std::deque<std::vector<Product>> products;
  std::vector<Product> next_products;
};

struct Block {
  uint3 index{};
  dim3 size{1, 1, 1}, grid{1, 1, 1};
  char* shared = nullptr;  // dynamic, 1024-aligned
};

Thread& self();
const Block& block();
void sync_block();
// Some of the block's threads meet at one of its other barriers; one that arrives does not wait.
void sync_some(int barrier, int threads);
void arrive_some(int barrier, int threads);

// Barriers in shared memory: a phase ends when `arrivals` have come, and as many bytes as were expected of
// copies, which happen as late as they may.
void begin_barrier(const void* at, int arrivals);
void arrive_at(const void* at, std::size_t expected_bytes);
void copy_towards(const void* at, std::size_t bytes, std::function<void()> copy);
void wait_for(const void* at, int parity);

// Hands `value` (up to 32 bytes) to the warp's other lanes and waits for theirs.
const std::array<std::array<std::uint64_t, 4>, kLanes>& exchange(const void* value, std::size_t bytes);

template <class T>
T from_lane(const std::array<std::array<std::uint64_t, 4>, kLanes>& given, int lane) {
  T value;
  std::memcpy(&value, given[static_cast<std::size_t>(lane)].data(), sizeof(T));
  return value;
}

// What the devices have together; more than that is refused. What is allocated of it now, of one of them (-1:
// of all), and at most since it was set.
void set_device_memory(std::size_t bytes);
std::size_t device_memory_taken(int device = -1);
std::size_t device_memory_most();

// So many of the next graphs find no memory.
void refuse_graphs(int count);

// The machine as the runtime finds it.
struct Machine {
  int devices = 1;
  int driver = 13000;    // CUDA's release that the driver knows; 0: there is none
  int architecture = 0;  // of the devices; 0: MLXS_EMULATED_SM, or 90
};
void set_machine(const Machine& machine);

// What passes between two events, in ms; events are not timed without it.
void set_elapsed(std::function<float()> ms);

// Aborts unless it is a stream of the thread's device.
void check_stream(cudaStream_t stream);

// Queued on the stream: at once, or when the graph that is being captured is launched.
void queue(std::function<void()> work);
// Shared memory of a block: what the GPU has at most (MLXS_EMULATED_SM), and what this kernel may have, 48
// KiB unless it asked for more. Aborts on what a GPU would refuse.
std::size_t most_shared();
void allow_shared(const void* kernel, std::size_t bytes);
void check_shared(const void* kernel, std::size_t bytes);
// Kernels that ran, of all threads.
std::size_t launched();
void run_grid(dim3 grid, unsigned threads, std::size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace mlxs::emulated
