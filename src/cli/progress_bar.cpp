#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "cli/format.h"

namespace mlxs::cli {
namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(100);

int terminal_width(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string bar(double fraction, int cells) {
  const int filled = std::clamp(static_cast<int>(fraction * cells), 0, cells);
  std::string text;
  for (int i = 0; i < cells; ++i) text += i < filled ? "█" : "░";
  return text;
}

}  // namespace

std::string render_progress(std::string_view name, const PullProgress& progress, double seconds, int width) {
  const std::string head = fmt::format("{} {}  ", name, progress.stage);
  const double rate = seconds > 0.5 ? static_cast<double>(progress.done_bytes) / seconds : 0;
  std::string tail;
  if (progress.total_bytes == 0) {
    tail = format_bytes(progress.done_bytes);
  } else {
    tail = fmt::format("{} of {}", format_bytes(progress.done_bytes), format_bytes(progress.total_bytes));
  }
  if (rate > 0) tail += fmt::format("  {}/s", format_bytes(static_cast<std::uint64_t>(rate)));
  if (progress.total_bytes == 0) return head + tail;

  const double fraction =
      std::min(1.0, static_cast<double>(progress.done_bytes) / static_cast<double>(progress.total_bytes));
  if (rate > 0 && fraction < 1) {
    const double left = static_cast<double>(progress.total_bytes - progress.done_bytes) / rate;
    tail += fmt::format("  {:.0f} s left", left);
  }
  const std::string percent = fmt::format("{:3.0f} %  ", fraction * 100);
  const int cells = std::min(30, width - static_cast<int>(head.size() + percent.size() + tail.size()) - 3);
  if (cells < 5) return head + percent;
  return head + bar(fraction, cells) + " " + percent + tail;
}

ProgressBar::ProgressBar(std::string name, std::FILE* out)
    : name_(std::move(name)), out_(out), terminal_(isatty(fileno(out)) == 1) {}

ProgressBar::~ProgressBar() {
  if (dirty_) std::fputc('\n', out_);
}

void ProgressBar::update(const PullProgress& progress) {
  const Time now = std::chrono::steady_clock::now();
  const bool new_stage = progress.stage != stage_;
  if (new_stage) {
    if (dirty_) std::fputc('\n', out_);
    dirty_ = false;
    stage_ = progress.stage;
    stage_began_ = now;
  }
  if (!terminal_) {
    if (!new_stage) return;
    fmt::print(out_, "{}: {}\n", name_, progress.stage);
    std::fflush(out_);
    return;
  }
  const bool complete = progress.total_bytes != 0 && progress.done_bytes >= progress.total_bytes;
  if (new_stage || complete || now - drawn_ >= kRedrawEvery) draw(progress, now);
}

void ProgressBar::draw(const PullProgress& progress, Time now) {
  const double seconds = std::chrono::duration<double>(now - stage_began_).count();
  fmt::print(out_, "\r\x1b[K{}", render_progress(name_, progress, seconds, terminal_width(out_)));
  std::fflush(out_);
  drawn_ = now;
  dirty_ = true;
}

}  // namespace mlxs::cli
