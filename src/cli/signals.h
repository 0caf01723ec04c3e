// SIGINT and SIGTERM of a server: the first asks it to drain, the second ends the process at once with
// status 1. Make one at the start of main's thread, before any other thread exists: they inherit the blocked
// signals. Lives as long as the process.
#pragma once

#include <memory>

namespace mlxs::cli {

class TerminationSignals {
 public:
  TerminationSignals();
  // Until this is called there is nothing to drain: the first signal ends the process at once, with status 1.
  void start_draining_on_signal();
  int wait();  // the first signal's number

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace mlxs::cli
