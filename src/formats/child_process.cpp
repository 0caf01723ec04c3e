#include "formats/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "mlxs/error.h"

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace mlxs {
namespace {

constexpr int kTickMs = 200;
constexpr int kEndingMs = 10;  // once its stderr is closed, a child is about to end
constexpr std::size_t kKeptErrors = std::size_t{16} << 10;

[[noreturn]] void refuse(std::string_view what, int error) {
  throw Error(ErrorCode::kIo, fmt::format("{}: {}", what, std::strerror(error)),
              "check the limits of this process (ulimit -a)");
}

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() {
    if (::pipe(ends.data()) != 0) refuse("cannot create a pipe", errno);
    for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  }
  ~Pipe() { close_end(0), close_end(1); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(std::size_t end) {
    if (ends[end] >= 0) ::close(std::exchange(ends[end], -1));
  }
};

struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t none, reset;
    sigemptyset(&none);
    sigemptyset(&reset);
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGXFSZ}) sigaddset(&reset, signal);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &reset);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

constexpr std::array kEndingSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT};
std::array<std::atomic<pid_t>, 64> running{};  // children; 0: a free place

extern "C" void stop_children_and_end(int number) {
  stop_children();
  ::signal(number, SIG_DFL);
  ::raise(number);  // delivered when this handler returns
}

// While there is a child: a signal that would only end this process ends the child, too. Signals that the
// program handles, ignores or waits for are its own.
class EndingSignals {
 public:
  EndingSignals() {
    const std::lock_guard lock(mutex_);
    if (users_++ > 0) return;
    for (std::size_t i = 0; i < kEndingSignals.size(); ++i) {
      struct sigaction before {};
      ::sigaction(kEndingSignals[i], nullptr, &before);
      ours_[i] = (before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_DFL;
      if (ours_[i]) ::signal(kEndingSignals[i], stop_children_and_end);
    }
  }
  ~EndingSignals() {
    const std::lock_guard lock(mutex_);
    if (--users_ > 0) return;
    for (std::size_t i = 0; i < kEndingSignals.size(); ++i) {
      if (ours_[i]) ::signal(kEndingSignals[i], SIG_DFL);
    }
  }
  EndingSignals(const EndingSignals&) = delete;
  EndingSignals& operator=(const EndingSignals&) = delete;

 private:
  static inline std::mutex mutex_;
  static inline int users_ = 0;
  static inline std::array<bool, kEndingSignals.size()> ours_{};
};

// Keeps them away from this thread: between a child's start and its entry in `running`.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : kEndingSignals) sigaddset(&held, signal);
    ::pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~SignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_;
};

// Stops the child unless it was waited for.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {
    for (std::atomic<pid_t>& place : running) {
      pid_t free = 0;
      if (!place.compare_exchange_strong(free, pid)) continue;
      place_ = &place;
      break;
    }
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    (void)wait(0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // True once the child has ended; flags are waitpid's.
  bool wait(int flags) {
    pid_t got = 0;
    do got = ::waitpid(pid_, &status_, flags);
    while (got < 0 && errno == EINTR);
    if (got == 0) return false;
    if (place_ != nullptr) *place_ = 0;
    pid_ = -1;
    return true;
  }
  int exit_code() const { return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_); }

 private:
  pid_t pid_;
  std::atomic<pid_t>* place_ = nullptr;  // null: there are too many
  int status_ = 0;
};

std::vector<std::string> merged_environment(const ChildCommand& command) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto replaced = [&](const auto& pair) { return text.starts_with(pair.first + "="); };
    if (std::ranges::none_of(command.environment, replaced)) merged.emplace_back(text);
  }
  for (const auto& [name, value] : command.environment) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// Appends what can be read now; false at the end of the stream.
bool drain(int fd, std::string& out) {
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  out.append(buffer.data(), static_cast<std::size_t>(n));
  if (out.size() > kKeptErrors) out.erase(0, out.size() - kKeptErrors);
  return n > 0;
}

}  // namespace

void stop_children() {
  for (const std::atomic<pid_t>& place : running) {
    if (const pid_t pid = place; pid > 0) ::kill(pid, SIGTERM);
  }
}

ChildResult run_child(const ChildCommand& command) {
  Pipe errors;
  SpawnSettings settings;
  posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (command.show_output) {
    posix_spawn_file_actions_adddup2(&settings.actions, STDERR_FILENO, STDOUT_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&settings.actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&settings.actions, errors.ends[1], STDERR_FILENO);
  }
  std::vector<std::string> arguments = command.arguments, environment = merged_environment(command);
  pid_t pid = 0;
  const EndingSignals ending;
  std::optional<SignalsHeld> held(std::in_place);
  const int error = ::posix_spawnp(&pid, arguments[0].c_str(), &settings.actions, &settings.attributes,
                                   pointers(arguments).data(), pointers(environment).data());
  ChildResult result;
  result.found = error != ENOENT;
  if (!result.found) return result;
  if (error != 0) refuse("cannot start " + arguments[0], error);
  Child child(pid);
  held.reset();
  errors.close_end(1);

  bool open = true;
  while (!child.wait(WNOHANG)) {
    pollfd ready{open ? errors.ends[0] : -1, POLLIN, 0};  // -1: only the time passes
    if (::poll(&ready, 1, open ? kTickMs : kEndingMs) > 0) {
      open = drain(errors.ends[0], result.errors);
    } else if (command.on_tick) {
      command.on_tick();
    }
  }
  // A grandchild may hold the stream open: take what is there and no more.
  for (pollfd ready{errors.ends[0], POLLIN, 0}; open && ::poll(&ready, 1, 0) > 0;) {
    open = drain(errors.ends[0], result.errors);
  }
  result.exit_code = child.exit_code();
  return result;
}

}  // namespace mlxs
