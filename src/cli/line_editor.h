// Reads lines for a REPL: libedit with a history file on a terminal, plain lines (no prompt) from anything
// else. Ctrl-C while typing gives up the line. While nothing is being read, take_interrupt() tells whether
// Ctrl-C was pressed. One at a time a process (it owns the SIGINT handler while it lives); used by main's
// thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace mlxs::cli {

class LineEditor {
 public:
  explicit LineEditor(const std::filesystem::path& history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Result { kLine, kInterrupted, kEnd };
  Result read(const std::string& prompt, std::string& line);  // line: without its newline
  bool interactive() const;
  static bool take_interrupt();  // true once for each Ctrl-C

 private:
  struct Terminal;
  std::unique_ptr<Terminal> terminal_;  // null: stdin is not a terminal
};

}  // namespace mlxs::cli
