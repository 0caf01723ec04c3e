// What the operating system knows of this process. Numbers it does not give are 0. Any thread.
#pragma once

#include <cstdint>

namespace mlxs {

struct ProcessStats {
  double start_unix_s = 0, cpu_s = 0;
  std::uint64_t resident_bytes = 0, virtual_bytes = 0, open_fds = 0, max_fds = 0;
};

ProcessStats process_stats();

}  // namespace mlxs
