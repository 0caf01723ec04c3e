// Line charts as one SVG image, for documents. Pure functions.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mlxs::cli {

struct ChartLine {
  std::string label;                              // equal labels have one colour and one entry in the legend
  std::vector<std::pair<double, double>> points;  // ascending x
};

struct LineChart {
  std::string title, x_label;
  bool seconds = false;  // x is a duration ≥ 1 µs on a logarithmic axis; else it is linear from 0
  bool percent = false;  // y is a share; else it is linear from 0
  double x_mark = -1;    // a dashed line there, if ≥ 0: a target
  std::vector<ChartLine> lines;
};

// Two charts a row, the legend on top.
std::string charts_svg(const std::string& title, std::span<const LineChart> charts);

}  // namespace mlxs::cli
