#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "formats/child_process.h"

namespace mlxs::cli {

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
  if (hangup_reloads) sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);

  // Detached: it waits in sigwait for a signal that usually never comes, and shares only the state.
  std::thread([set, state = state_] {
    for (;;) {
      int number = 0;
      if (sigwait(&set, &number) != 0) continue;
      const std::lock_guard lock(state->mutex);
      if (number == SIGHUP) {
        if (state->reload) state->reload();
        continue;
      }
      if (number == SIGUSR1 || number == SIGUSR2) {
        if (const auto& action = state->user[number == SIGUSR2]) action();
        continue;
      }
      if (!state->draining_possible || state->received != 0) {
        stop_children();  // a download
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
