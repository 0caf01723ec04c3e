#include "telemetry/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace mlxs {
namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// When this program's code began to run: close enough to the process's own start.
const double kStarted =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

}  // namespace

ProcessStats process_stats() {
  ProcessStats stats{.start_unix_s = kStarted};
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) stats.cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    unsigned long total = 0, resident = 0;
    if (std::fscanf(file, "%lu %lu", &total, &resident) == 2) {
      const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
      stats.virtual_bytes = total * page;
      stats.resident_bytes = resident * page;
    }
    std::fclose(file);
  }
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) stats.max_fds = files.rlim_cur;
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++stats.open_fds;
  }
  return stats;
}

}  // namespace mlxs
