// Enough of Metal's shading language to run a kernel of ours on the host: a thread for each of a
// threadgroup's threads, simd_sum and barriers as meeting points. For tests; the kernel is included where its
// names stand.
#pragma once

#include <array>
#include <barrier>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#define threadgroup static  // shared by the threads of the one group that runs; a group leaves nothing behind

namespace metal {
inline float exp(float x) { return std::exp(x); }
inline float tanh(float x) { return std::tanh(x); }
inline float max(float a, float b) { return std::fmax(a, b); }
}  // namespace metal

namespace mlxs::test {

struct Grid {
  unsigned x = 0, y = 0, z = 0;
};
enum class mem_flags { mem_threadgroup };

struct Simdgroup {
  std::barrier<> meet{32};
  std::array<float, 32> values{};
};
struct MetalThread {
  Simdgroup* simdgroup = nullptr;
  std::barrier<>* all = nullptr;
  unsigned lane = 0;
};
inline thread_local MetalThread current;

inline float simd_sum(float value) {
  Simdgroup& group = *current.simdgroup;
  group.values[current.lane] = value;
  group.meet.arrive_and_wait();
  float sum = 0;
  for (const float other : group.values) sum += other;
  group.meet.arrive_and_wait();
  return sum;
}
inline void threadgroup_barrier(mem_flags) { current.all->arrive_and_wait(); }

// body(lane, simdgroup) on each thread of one threadgroup.
inline void run_threadgroup(unsigned simdgroups, const std::function<void(unsigned, unsigned)>& body) {
  std::vector<std::unique_ptr<Simdgroup>> groups;
  std::barrier all(static_cast<std::ptrdiff_t>(simdgroups) * 32);
  for (unsigned g = 0; g < simdgroups; ++g) groups.push_back(std::make_unique<Simdgroup>());
  std::vector<std::jthread> threads;
  for (unsigned g = 0; g < simdgroups; ++g) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      threads.emplace_back([&, g, lane] {
        current = {groups[g].get(), &all, lane};
        body(lane, g);
      });
    }
  }
}

}  // namespace mlxs::test
