#include "cli/signals.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "formats/child_process.h"

namespace mlxs::cli {
namespace {

// Whether SIGHUP can mean that the terminal is gone; nohup says that this is not to matter.
bool at_terminal() {
  struct sigaction action {};
  return isatty(STDIN_FILENO) != 0 && sigaction(SIGHUP, nullptr, &action) == 0 &&
         action.sa_handler != SIG_IGN;
}

// Neither the lock of stdio nor a full pipe may hold up the end.
void tell_interrupted(int number) {
  pollfd err{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&err, 1, 0) <= 0 || (err.revents & POLLOUT) == 0) return;
  const std::string line = fmt::format("error: interrupted ({})\n", strsignal(number));
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

struct TerminationSignals::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool draining_possible = false;
  int received = 0;
  std::function<void()> reload;
  std::function<void()> user[2];  // SIGUSR1, SIGUSR2
};

TerminationSignals::TerminationSignals(bool hangup_reloads) : state_(std::make_shared<State>()) {
  signal(SIGPIPE,
         SIG_IGN);  // a peer that closes early is an error code of write(), not the end of the server
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);

  // Detached: it waits in sigwait for a signal that usually never comes, and shares only the state.
  const bool hangup_ends = !hangup_reloads && at_terminal();
  std::thread([set, hangup_ends, state = state_] {
    for (;;) {
      int number = 0;
      if (sigwait(&set, &number) != 0) continue;
      const std::lock_guard lock(state->mutex);
      if (number == SIGHUP && !hangup_ends) {
        if (state->reload) state->reload();
        continue;
      }
      if (number == SIGHUP && state->received != 0) continue;  // the shell and the system both send it
      if (number == SIGUSR1 || number == SIGUSR2) {
        if (const auto& action = state->user[number == SIGUSR2]) action();
        continue;
      }
      if (!state->draining_possible || state->received != 0) {
        stop_children();  // a download
        tell_interrupted(number);
        _exit(1);
      }
      state->received = number;
      state->changed.notify_all();
    }
  }).detach();
}

void TerminationSignals::start_draining_on_signal() {
  const std::lock_guard lock(state_->mutex);
  state_->draining_possible = true;
}

void TerminationSignals::on_hangup(std::function<void()> reload) {
  const std::lock_guard lock(state_->mutex);
  state_->reload = std::move(reload);
}

void TerminationSignals::on_user(int number, std::function<void()> action) {
  const std::lock_guard lock(state_->mutex);
  state_->user[number == SIGUSR2] = std::move(action);
}

int TerminationSignals::wait() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->received != 0; });
  return state_->received;
}

}  // namespace mlxs::cli
