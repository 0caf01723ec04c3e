#include "backend/cpu/machine.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace mlxs::cpu {
namespace {

constexpr int kMostThreads = 16;

#if defined(__linux__)

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

// Hyper-threads of one core share its vector units: count each set of siblings once.
int physical_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string number = std::to_string(cpu);
    const std::string siblings =
        first_line("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? number : siblings);
  }
  return static_cast<int>(cores.size());
}

// A container's share of processor time, "quota period" in microseconds; 0: no limit.
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || period <= 0) return 0;  // "max 100000", or no cgroup v2
  return std::max(1, static_cast<int>(std::lround(quota / period)));
}

std::size_t read_bytes(const char* path) {
  std::ifstream file(path);
  std::size_t bytes = 0;
  return file >> bytes ? bytes : 0;
}

#endif

}  // namespace

int default_threads() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  if (const int physical = physical_cores(); physical > 0) cores = physical;
  if (const int quota = quota_cores(); quota > 0) cores = std::min(cores, quota);
#elif defined(__APPLE__)
  int physical = 0;
  std::size_t size = sizeof(physical);
  if (sysctlbyname("hw.physicalcpu", &physical, &size, nullptr, 0) == 0 && physical > 0) cores = physical;
#endif
  return std::clamp(cores, 1, kMostThreads);
}

MemoryInfo memory_info() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  MemoryInfo info;
  info.total = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page;
  info.available = info.total;
#if defined(__linux__)
  std::ifstream file("/proc/meminfo");
  for (std::string name, line; file >> name; std::getline(file, line)) {
    std::size_t kib = 0;
    if (name == "MemAvailable:" && file >> kib) info.available = kib * 1024;
  }
  if (const std::size_t limit = read_bytes("/sys/fs/cgroup/memory.max"); limit > 0 && limit < info.total) {
    info.total = limit;
    const std::size_t used = read_bytes("/sys/fs/cgroup/memory.current");
    info.available = std::min(info.available, limit - std::min(used, limit));
  }
#endif
  return info;
}

}  // namespace mlxs::cpu
