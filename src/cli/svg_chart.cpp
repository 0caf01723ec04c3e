#include "cli/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace mlxs::cli {
namespace {

constexpr double kPanelWidth = 430, kPanelHeight = 300, kTop = 64;   // pixels
constexpr double kLeft = 52, kRight = 14, kAbove = 34, kBelow = 46;  // margins within a panel
constexpr const char* kColours[] = {"#b0413e", "#d99a2b", "#6b7a8f", "#2f6fde", "#2d936c", "#8a4fbf", "#222"};

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string duration_label(double seconds) {
  if (seconds >= 0.9995) return fmt::format("{:.0f} s", seconds);
  if (seconds >= 0.9995e-3) return fmt::format("{:.0f} ms", seconds * 1e3);
  return fmt::format("{:.0f} µs", seconds * 1e6);
}

// The step of a linear axis: 1, 2 or 5 times a power of ten, about five of them.
double nice_step(double range) {
  const double raw = std::max(range, 1e-9) / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power * 1.0001) return factor * power;
  }
  return 10 * power;
}

class Panel {
 public:
  Panel(const LineChart& chart, double left, double top, std::string& out)
      : chart_(chart), x0_(left + kLeft), y0_(top + kAbove), out_(out) {
    x_min_ = chart.seconds ? 1e9 : 0;
    for (const ChartLine& line : chart.lines) {
      for (const auto& [x, y] : line.points) {
        if (chart.seconds) x_min_ = std::min(x_min_, x);
        x_max_ = std::max(x_max_, x);
        y_max_ = std::max(y_max_, y);
      }
    }
    if (chart.percent) y_max_ = 1;
    if (!chart.seconds) return;
    if (chart.x_mark > 0) x_max_ = std::max(x_max_, chart.x_mark);
    x_min_ = std::pow(10, std::floor(std::log10(std::clamp(x_min_, 1e-6, x_max_))));
  }

  void draw(std::span<const std::string> labels) {
    text(x0_, y0_ - 14, "start", "#111", chart_.title, true);
    text(x0_ + width() / 2, y0_ + height() + 36, "middle", "#444", chart_.x_label);
    const double y_step = nice_step(y_max_);
    for (double y = 0; y <= y_max_ * 1.0001; y += y_step) {
      line(x0_, py(y), x0_ + width(), py(y), "#e8e8e8");
      text(
          x0_ - 6, py(y) + 4, "end", "#666",
          chart_.percent ? fmt::format("{:.0f} %", y * 100) : fmt::format("{:g}", std::round(y * 1e6) / 1e6));
    }
    draw_x_axis();
    if (chart_.x_mark >= 0) line(px(chart_.x_mark), y0_, px(chart_.x_mark), y0_ + height(), "#999", "4 3");
    for (const ChartLine& one : chart_.lines) {
      const auto colour = std::ranges::find(labels, one.label) - labels.begin();
      polyline(one, kColours[static_cast<std::size_t>(colour) % std::size(kColours)]);
    }
  }

 private:
  static constexpr double width() { return kPanelWidth - kLeft - kRight; }
  static constexpr double height() { return kPanelHeight - kAbove - kBelow; }

  double px(double x) const {
    const double share =
        chart_.seconds ? std::log(std::max(x, x_min_) / x_min_) / std::log(std::max(x_max_ / x_min_, 1.01))
                       : x / std::max(x_max_, 1e-9);
    return x0_ + width() * share;
  }
  double py(double y) const { return y0_ + height() * (1 - y / std::max(y_max_, 1e-9)); }

  void draw_x_axis() {
    const double step = nice_step(x_max_);
    for (double x = x_min_; x <= x_max_ * 1.0001; x = chart_.seconds ? x * 10 : x + step) {
      line(px(x), y0_, px(x), y0_ + height(), "#f0f0f0");
      text(px(x), y0_ + height() + 17, "middle", "#666",
           chart_.seconds ? duration_label(x) : fmt::format("{:g}", std::round(x * 1e6) / 1e6));
    }
  }

  void text(double x, double y, const char* anchor, const char* colour, const std::string& what,
            bool bold = false) {
    fmt::format_to(std::back_inserter(out_),
                   R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}"{}>{}</text>)", x, y, anchor,
                   colour, bold ? R"( font-weight="600")" : "", escape(what));
  }
  void line(double x1, double y1, double x2, double y2, const char* colour, const char* dashes = "none") {
    fmt::format_to(
        std::back_inserter(out_),
        R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-dasharray="{}"/>)", x1,
        y1, x2, y2, colour, dashes);
  }
  void polyline(const ChartLine& one, const char* colour) {
    out_ += R"(<polyline fill="none" stroke-width="2" stroke=")" + std::string(colour) + R"(" points=")";
    for (const auto& [x, y] : one.points)
      fmt::format_to(std::back_inserter(out_), "{:.1f},{:.1f} ", px(x), py(y));
    out_ += "\"/>";
  }

  const LineChart& chart_;
  double x0_, y0_;
  std::string& out_;
  double x_min_ = 0, x_max_ = 0, y_max_ = 0;
};

std::vector<std::string> labels_of(std::span<const LineChart> charts) {
  std::vector<std::string> labels;
  for (const LineChart& chart : charts) {
    for (const ChartLine& line : chart.lines) {
      if (std::ranges::find(labels, line.label) == labels.end()) labels.push_back(line.label);
    }
  }
  return labels;
}

}  // namespace

std::string charts_svg(const std::string& title, std::span<const LineChart> charts) {
  const std::size_t rows = (charts.size() + 1) / 2;
  std::string out = fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" font-family="system-ui, sans-serif" font-size="12">)"
      R"(<rect width="100%" height="100%" fill="#fff"/><text x="16" y="26" font-size="16" font-weight="600" fill="#111">{}</text>)",
      2 * kPanelWidth, kTop + static_cast<double>(rows) * kPanelHeight, escape(title));
  const std::vector<std::string> labels = labels_of(charts);
  double x = 16;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    fmt::format_to(
        std::back_inserter(out),
        R"(<rect x="{:.0f}" y="42" width="14" height="4" fill="{}"/><text x="{:.0f}" y="49" fill="#333">{}</text>)",
        x, kColours[i % std::size(kColours)], x + 20, escape(labels[i]));
    x += 44 + 6.6 * static_cast<double>(labels[i].size());
  }
  for (std::size_t i = 0; i < charts.size(); ++i) {
    Panel(charts[i], i % 2 == 0 ? 0 : kPanelWidth, kTop + static_cast<double>(i / 2) * kPanelHeight, out)
        .draw(labels);
  }
  return out + "</svg>\n";
}

}  // namespace mlxs::cli
