// The flags of the configuration: every key of the table that has one, and --config. A command that declares
// them reads the whole configuration with load_config().
#pragma once

#include <CLI/CLI.hpp>

#include <map>
#include <string>

#include "config/config.h"

namespace mlxs::cli {

struct ConfigFlags {
  std::string file;
  bool no_file = false;
  std::map<std::string, config::Raw> given;  // by the key's path
};
// flags outlives the parsing. group: under which heading --help lists them; "": not at all.
void add_config_flags(CLI::App& command, ConfigFlags& flags, const std::string& group = "Options");

// Flags, environment and file together; throws as config::load does. Warnings are the caller's to show.
config::Config load_config(const ConfigFlags& flags);

}  // namespace mlxs::cli
