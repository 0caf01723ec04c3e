// Flags of a server's sockets: where it listens, who may come in, and its limits. Together they make
// ServerOptions.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <string>

#include "serve/server.h"

namespace mlxs::cli {

struct ServerFlags {
  ServerOptions options;  // what the flags say, but for the keys
  bool insecure = false;
  std::string api_keys;                  // file; empty: none
  std::string unix_socket_mode = "600";  // octal
  std::string slow_reader = "pause";
  bool address_given = false;  // --host or --port
};
void add_server_flags(CLI::App& command, ServerFlags& flags);

// The options with the keys of file and environment. Throws kInvalidArgument if others could reach a server
// that asks nobody for a key.
ServerOptions server_options(const ServerFlags& flags);
// From file and environment.
ApiKeys read_api_keys(const ServerFlags& flags);

// What clients connect to: "http://127.0.0.1:8000", "https://[::1]:8000", "unix:/path".
std::string server_url(const ServerOptions& options, int port);

// As many open files as the system lets this process have: each connection needs one. What it has then.
std::uint64_t raise_open_files();

}  // namespace mlxs::cli
