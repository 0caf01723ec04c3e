#include "cli/line_editor.h"

#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <iostream>
#include <system_error>
#include <utility>

namespace mlxs::cli {
namespace {

constexpr int kHistoryLines = 1000;

// Ctrl-C as bytes in a pipe, written by the signal handler (so it can only be global): whichever thread takes
// the signal and whenever it comes, the reader wakes. A flag would be missed between looking at it and
// blocking in read().
int wake[2] = {-1, -1};

void on_interrupt(int) {
  const int error = errno;
  [[maybe_unused]] const ssize_t full_is_fine = ::write(wake[1], "!", 1);
  errno = error;
}

void open_wake() {
  if (::pipe(wake) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  for (const int end : wake) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
}

// Until stdin has bytes or has ended (true), or Ctrl-C was pressed (false).
bool wait_for_input() {
  std::array<pollfd, 2> sources{{{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                                 {.fd = wake[0], .events = POLLIN, .revents = 0}}};
  while (::poll(sources.data(), sources.size(), -1) < 0 && errno == EINTR) {  // also: resized, resumed
  }
  return sources[1].revents == 0;
}

// Reads one character for libedit. Its own reader would go on after Ctrl-C; this one ends the line.
int read_character(EditLine*, wchar_t* out) {
  std::mbstate_t state{};
  for (;;) {
    if (!wait_for_input()) return -1;
    char byte = 0;
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return static_cast<int>(count);
    switch (std::mbrtowc(out, &byte, 1, &state)) {
      case static_cast<std::size_t>(-2):
        continue;  // more bytes to come
      case static_cast<std::size_t>(-1):
        state = {};
        continue;  // not a character of this locale
      default:
        return 1;
    }
  }
}

}  // namespace

struct LineEditor::Terminal {
  std::string history_file, prompt;
  History* history = history_init();
  EditLine* editor = el_init("mlx-serving", stdin, stdout, stderr);
  HistEvent event{};

  explicit Terminal(const std::filesystem::path& file) : history_file(file.string()) {
    std::setlocale(LC_CTYPE, "");  // how many bytes a character has
    ::history(history, &event, H_SETSIZE, kHistoryLines);
    ::history(history, &event, H_SETUNIQUE, 1);
    ::history(history, &event, H_LOAD, history_file.c_str());  // the first time there is none
    el_set(editor, EL_CLIENTDATA, this);
    el_set(
        editor, EL_PROMPT, +[](EditLine* line) {
          Terminal* self = nullptr;
          el_get(line, EL_CLIENTDATA, &self);
          return self->prompt.data();
        });
    el_set(editor, EL_HIST, ::history, history);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(editor, EL_SIGNAL, 0);
    el_set(editor, EL_GETCFN, read_character);
    el_source(editor, nullptr);  // the user's ~/.editrc
  }
  ~Terminal() {
    std::error_code ignored;  // without the folder there is no history to keep; not worth stopping for
    std::filesystem::create_directories(std::filesystem::path(history_file).parent_path(), ignored);
    ::history(history, &event, H_SAVE, history_file.c_str());
    el_end(editor);
    history_end(history);
  }
};

LineEditor::LineEditor(const std::filesystem::path& history_file) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) return;
  open_wake();
  terminal_ = std::make_unique<Terminal>(history_file);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

LineEditor::~LineEditor() {
  if (!terminal_) return;
  signal(SIGINT, SIG_DFL);
  for (int& end : wake) ::close(std::exchange(end, -1));
}

bool LineEditor::interactive() const { return terminal_ != nullptr; }

bool LineEditor::take_interrupt() {
  char bytes[64];
  bool pressed = false;
  while (::read(wake[0], bytes, sizeof bytes) > 0) pressed = true;
  return pressed;
}

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& line) {
  if (!terminal_) return std::getline(std::cin, line) ? Result::kLine : Result::kEnd;

  terminal_->prompt = prompt;
  int length = 0;
  el_set(terminal_->editor, EL_PREP_TERM,
         1);  // before the prompt shows: a key pressed at once must not be lost
  const char* text = el_gets(terminal_->editor, &length);
  if (take_interrupt()) {
    std::fputs("^C\n", stdout);
    el_reset(terminal_->editor);
    return Result::kInterrupted;
  }
  if (text == nullptr || length == 0) {
    std::fputc('\n', stdout);
    return Result::kEnd;
  }
  line.assign(text, static_cast<std::size_t>(length));
  if (!line.empty() && line.back() == '\n') line.pop_back();
  if (!line.empty()) history(terminal_->history, &terminal_->event, H_ENTER, line.c_str());
  return Result::kLine;
}

}  // namespace mlxs::cli
