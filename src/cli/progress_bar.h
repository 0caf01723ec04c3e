// The progress of a pull on stderr: a bar that redraws itself on a terminal, one line a stage elsewhere.
// Used by the thread that pulls. Leaves the cursor on a fresh line when it goes.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

#include "formats/catalog.h"

namespace mlxs::cli {

// "smollm2 downloading  ██████░░░░  62 %  60.8 MB of 98.0 MB  12.1 MB/s  3 s left", at most `width` columns.
// seconds: since the stage began.
std::string render_progress(std::string_view name, const PullProgress& progress, double seconds, int width);

class ProgressBar {
 public:
  ProgressBar(std::string name, std::FILE* out);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(const PullProgress& progress);

 private:
  using Time = std::chrono::steady_clock::time_point;
  void draw(const PullProgress& progress, Time now);

  std::string name_;
  std::FILE* out_;
  bool terminal_;
  std::string stage_;
  Time stage_began_{};
  Time drawn_{};
  bool dirty_ = false;  // a bar stands on the current line
};

}  // namespace mlxs::cli
