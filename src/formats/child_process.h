// Runs a program to its end, without a shell: an argument vector, stdin closed. Used by one thread.
// The child is stopped and reaped if on_tick throws, and stopped when a signal ends this process by its
// default action. Throws kIo when it cannot be started.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace mlxs {

struct ChildCommand {
  std::vector<std::string> arguments;                            // [0] is looked up on PATH
  std::vector<std::pair<std::string, std::string>> environment;  // added to, or replacing, this process's
  bool show_output = false;       // stdout and stderr go to our stderr instead of being captured
  std::function<void()> on_tick;  // may be empty; a few times a second while the child runs
};

struct ChildResult {
  bool found = true;   // false: no such program on PATH
  int exit_code = 0;   // 128 + signal if one ended it
  std::string errors;  // the last 16 KiB of its stderr; empty with show_output
};

ChildResult run_child(const ChildCommand& command);

// For who ends the process without leaving run_child(). Async-signal-safe.
void stop_children();

}  // namespace mlxs
