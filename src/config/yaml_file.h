// A configuration file as flat entries, each with its line: YAML 1.2 (and JSON, which is YAML).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "config/value.h"

namespace mlxs::config {

struct FileEntry {
  std::string path;  // "gpu_scheduler.fast_path.enabled"
  Raw value;
  int line = 0;  // from 1
};

// is_leaf: paths whose value is taken as it is, maps too; other maps are gone into. An empty map is no entry.
// Throws kInvalidArgument with name and line: no YAML, no map at the top, a key twice, a key that is no text,
// `<<`.
std::vector<FileEntry> read_yaml(std::string_view text, const std::string& name,
                                 const std::function<bool(std::string_view)>& is_leaf);

// The file's text. kIo if it cannot be read, kTooLarge over 1 MiB.
std::string read_config_text(const std::string& file);

}  // namespace mlxs::config
