// What this process may use of the machine: processors (affinity, container quota) and memory (container
// limit). Read from the system on each call; any thread.
#pragma once

#include <cstddef>

namespace mlxs::cpu {

// Compute threads that make sense: one a physical core that the process may run on, at most 16.
int default_threads();

struct MemoryInfo {
  std::size_t total = 0;
  std::size_t available = 0;  // without swapping
};
MemoryInfo memory_info();

}  // namespace mlxs::cpu
