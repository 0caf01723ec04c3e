// SIGINT and SIGTERM of a server: the first asks it to drain, the second ends the process at once with
// status 1. SIGHUP reloads; where there is nothing to reload it drains, too, if there is a terminal that may
// have been closed. SIGUSR1 and SIGUSR2 do what they are told, or nothing. Make one at the start of main's
// thread, before any other thread exists: they inherit the blocked signals. Lives as long as the process.
#pragma once

#include <functional>
#include <memory>

namespace mlxs::cli {

class TerminationSignals {
 public:
  explicit TerminationSignals(bool hangup_reloads = false);
  // Until this is called there is nothing to drain: the first signal ends the process at once, with status 1.
  void start_draining_on_signal();
  void on_hangup(std::function<void()> reload);            // called on a thread of its own; must not throw
  void on_user(int number, std::function<void()> action);  // SIGUSR1 or SIGUSR2; the same
  int wait();                                              // the first signal's number

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace mlxs::cli
