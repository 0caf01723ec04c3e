// The configuration of one process: what flags, environment and file say, laid over the defaults.
// A flag wins over a variable, that over the environment's block of the file (`environments.NAME`), that over
// the file, that over the default. Pure, but for find_config_file and the file that it reads.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/settings.h"
#include "config/table.h"
#include "config/value.h"

namespace mlxs::config {

struct Sources {
  std::string file;                 // empty: none
  std::optional<std::string> text;  // what the file says; unset: it is read
  std::function<std::optional<std::string>(const std::string&)>
      env;                             // a variable's value; empty: there are none
  std::vector<std::string> variables;  // names of all variables, to find mistyped ones
  std::map<std::string, Raw> flags;    // by the key's path
};
Sources process_sources();  // the process's environment; no file and no flags

// What one key is, and why.
struct Effective {
  const Key* key = nullptr;
  Value value;
  enum class From { kDefault, kPreset, kFile, kEnvironment, kFlag } from = From::kDefault;
  std::string where;  // "config/runtime.yaml:12", "MLX_FAST_PATH", "--port"; empty: the default

  std::string shown() const;  // as text, a secret masked
};

struct Config {
  Settings settings;
  std::vector<Effective> effective;   // one a key, in the table's order
  std::vector<std::string> warnings;  // each one line: clamped values, keys that are not in this build
  std::string file;                   // that was read; empty: none
  std::string environment;            // the block of `environments` that applies; empty: none

  const Effective& of(std::string_view path) const;
};

// Throws kInvalidArgument, "Configuration validation failed", with every wrong key and value at once, each
// with file and line (or variable, or flag) and what would be right. Values of file and environment that lie
// outside their range are moved inside, with a warning; those of flags are refused.
Config load(const Sources& sources);

// ./config/runtime.yaml, else runtime.yaml in ~/.config/mlx-serving (or in that of XDG_CONFIG_HOME); empty:
// neither is there.
std::string find_config_file();

}  // namespace mlxs::config
