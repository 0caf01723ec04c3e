// Every key that acts in this build, in the order of the documentation, and the seeds' keys that do not, with
// the reason. Made once; then read by any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/key.h"

namespace mlxs::config {

std::span<const Key> keys();
// By its path, not an alias; null: none.
const Key* find_key(std::string_view path);
// Whether some key's or alias's path begins with it: "gpu_scheduler".
bool is_section(std::string_view path);

// A key or section of other configurations that has no mechanism here: said by name, never silently taken.
struct Absent {
  std::string_view path;    // a variable's name, for absent_variables()
  std::string_view reason;  // and what to use instead, where there is something
};
std::span<const Absent> absent_keys();
std::span<const Absent> absent_variables();
// The entry for the key or a section around it, the longest; null: none.
const Absent* find_absent(std::string_view path);

inline constexpr double kDayMs = 86'400'000;  // the upper end of many ranges

// The parts of the table; each file is one.
std::vector<Key> engine_keys();
std::vector<Key> metal_keys();
std::vector<Key> scheduler_keys();
std::vector<Key> server_keys();
std::vector<Key> telemetry_keys();

}  // namespace mlxs::config
