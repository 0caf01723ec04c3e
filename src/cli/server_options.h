// The options of a server out of the configuration: its keys, whether others may reach it, its address and
// what the system must give it.
#pragma once

#include <cstdint>
#include <string>

#include "config/settings.h"

namespace mlxs::cli {

// The options with the keys. Throws kInvalidArgument if others could reach a server that asks nobody for a
// key.
ServerOptions server_options(const config::Settings& settings);
// Of the file and the one more of the configuration; reads the file anew at each call.
ApiKeys read_api_keys(const config::Settings& settings);

// What clients connect to: "http://127.0.0.1:8000", "https://[::1]:8000", "unix:/path".
std::string server_url(const ServerOptions& options, int port);

// As many open files as the system lets this process have: each connection needs one. What it has then.
std::uint64_t raise_open_files();

}  // namespace mlxs::cli
