// What this machine and this process's surroundings are, read once: the ground of `doctor` and `collect-env`.
// Reads the system, the environment and the caches' folders; changes nothing. Any thread; what the system
// does not tell stays empty.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mlxs::cli {

struct BackendFacts {
  std::string name;
  bool built = false;
  std::string device;  // its own description, if it runs here
  std::string reason;  // why it does not
};

struct FolderFacts {
  std::string path;
  bool writable = false;  // it, or the nearest parent that exists
  std::uint64_t free_bytes = 0;
};

struct PortFacts {
  std::string address;
  int port = 0;
  enum class State { kFree, kOurs, kTaken, kForbidden } state = State::kFree;
};

// What serve would be told without a flag.
struct ConfigurationFacts {
  std::string file;  // empty: none
  std::vector<std::string> warnings;
  std::string error;  // serve would not start; may have several lines
};

struct MachineFacts {
  std::string version, system, kernel, compiler;
  // processor
  std::string processor;
  std::vector<std::string> features;  // of those that select kernels
  int processors = 0;                 // online
  int usable = 0;                     // by affinity
  int threads = 0;                    // compute threads that will be used
  std::string isa_possible, isa_used;
  std::string isa_asked;  // $MLXS_CPU_ISA
  std::string governor;   // of cpufreq
  double load = 0;        // of the last minute
  // memory
  std::uint64_t memory_bytes = 0, available_bytes = 0;  // within the container's limit
  std::uint64_t swap_used_bytes = 0;
  std::string huge_pages;  // transparent ones: always, madvise, never
  // limits
  std::uint64_t open_files_soft = 0, open_files_hard = 0;
  std::optional<std::uint64_t> address_space;  // ulimit -v, if there is one
  // parts
  std::vector<BackendFacts> backends;
  bool nvidia_driver = false;
  std::string nvidia_version;  // of the driver, as it says it
  FolderFacts cache, hub;
  bool hub_offline = false;
  std::string hub_endpoint;
  int models = 0;
  PortFacts port;
  ConfigurationFacts configuration;
  std::vector<std::pair<std::string, std::string>> environment;  // what we read; secrets as "(set)"
};

MachineFacts gather_facts(int port);

}  // namespace mlxs::cli
