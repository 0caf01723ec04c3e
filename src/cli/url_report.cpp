#include "cli/url_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/percentile.h"
#include "cli/format.h"
#include "cli/svg_chart.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using nlohmann::json;
using Row = std::vector<std::string>;

struct Metric {
  const char* name;
  const char* pointer;  // within a run
  int digits;
};
constexpr Metric kThroughput{"tokens/s", "/throughput_tok_s", 1};
constexpr Metric kTtft50{"first token p50, ms", "/ttft_ms/p50", 1},
    kTtft95{"first token p95, ms", "/ttft_ms/p95", 1};
constexpr Metric kItl50{"between tokens p50, ms", "/itl_ms/p50", 2},
    kItl95{"between tokens p95, ms", "/itl_ms/p95", 2};
constexpr Metric kE2e50{"whole answer p50, ms", "/e2e_ms/p50", 0},
    kE2e95{"whole answer p95, ms", "/e2e_ms/p95", 0};

struct Table {
  std::string title, note;
  std::vector<Row> rows;  // the first is the heading
};

class Result {
 public:
  explicit Result(const json& document) : document_(document), runs_(document.at("runs")) {}

  std::size_t sides() const { return document_.at("sides").size(); }
  std::string side_name(std::size_t side) const { return side == 0 ? "A" : "B"; }

  // The different x of a kind, ascending.
  std::vector<double> xs(const char* kind) const {
    std::set<double> all;
    for (const json& run : runs_) {
      if (run.at("kind") == kind) all.insert(run.at("x").get<double>());
    }
    return {all.begin(), all.end()};
  }

  // Of each cycle that has it, in order.
  std::vector<double> values(const char* kind, double x, std::size_t side, const Metric& metric) const {
    std::vector<double> all;
    const json::json_pointer pointer(metric.pointer);
    for (const json& run : runs_) {
      if (run.at("kind") == kind && run.at("x").get<double>() == x && run.at("side") == side &&
          run.contains(pointer) && run.at(pointer).is_number()) {
        all.push_back(run.at(pointer).get<double>());
      }
    }
    return all;
  }
  std::vector<double> ratios(const char* kind, double x, const Metric& metric) const {
    const std::vector<double> a = values(kind, x, 0, metric), b = values(kind, x, 1, metric);
    std::vector<double> all;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (b[i] > 0) all.push_back(a[i] / b[i]);
    }
    return all;
  }
  const json& document() const { return document_; }
  const json& runs() const { return runs_; }

 private:
  const json& document_;
  const json& runs_;
};

// The median of the cycles, with the least and the largest where they differ.
std::string spread(const std::vector<double>& values, int digits) {
  if (values.empty()) return "-";
  const auto [low, high] = std::ranges::minmax(values);
  const std::string middle = fmt::format("{:.{}f}", percentile(values, 50), digits);
  if (values.size() == 1) return middle;
  return fmt::format("{} ({:.{}f} … {:.{}f})", middle, low, digits, high, digits);
}

std::string failures_of(const Result& result) {
  std::map<std::string, int> all;
  int failed = 0, requests = 0, uncounted = 0, silent = 0;
  for (const json& run : result.runs()) {
    failed += run.at("failed").get<int>();
    requests += run.at("requests").get<int>();
    uncounted += run.value("without_usage", 0);
    silent += run.value("without_text", 0);
    for (const auto& [reason, count] : run.at("failures").items()) all[reason] += count.get<int>();
  }
  std::string text = fmt::format("{} requests, {} failed.", requests, failed);
  for (const auto& [reason, count] : all) text += fmt::format(" {} x {}.", count, reason);
  if (uncounted > 0)
    text += fmt::format(" {} answers came without `usage`: their pieces of text count as tokens.", uncounted);
  if (silent > 0)
    text += fmt::format(" {} answers had no text: first tokens and gaps are not theirs.", silent);
  return text;
}

// One x, a metric a row.
Table questions_table(const Result& result) {
  Table table{"Questions", "", {{"", result.sides() == 1 ? "" : "A"}}};
  if (result.sides() == 2) table.rows[0].insert(table.rows[0].end(), {"B", "A / B"});
  const double x = result.xs("questions").front();
  table.note = x == 1 ? "One at a time." : fmt::format("{:g} at once.", x);
  for (const Metric& metric : {kThroughput, kTtft50, kTtft95, kItl50, kItl95, kE2e50, kE2e95}) {
    Row row{metric.name};
    for (std::size_t side = 0; side < result.sides(); ++side)
      row.push_back(spread(result.values("questions", x, side, metric), metric.digits));
    if (result.sides() == 2) row.push_back(spread(result.ratios("questions", x, metric), 2));
    table.rows.push_back(std::move(row));
  }
  return table;
}

// An x a row, and for each metric the sides and their ratio.
Table x_table(const Result& result, const char* kind, const std::string& title, const std::string& note,
              const std::string& x_name, std::vector<Metric> metrics) {
  Table table{title, note, {{x_name}}};
  for (const Metric& metric : metrics) {
    if (result.sides() == 1) {
      table.rows[0].emplace_back(metric.name);
      continue;
    }
    for (const char* what : {"A", "B", "A / B"})
      table.rows[0].push_back(fmt::format("{}: {}", metric.name, what));
  }
  for (const double x : result.xs(kind)) {
    Row row{fmt::format("{:g}", x)};
    for (const Metric& metric : metrics) {
      for (std::size_t side = 0; side < result.sides(); ++side)
        row.push_back(spread(result.values(kind, x, side, metric), metric.digits));
      if (result.sides() == 2) row.push_back(spread(result.ratios(kind, x, metric), 2));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<Table> tables(const Result& result) {
  std::vector<Table> all;
  if (!result.xs("questions").empty()) all.push_back(questions_table(result));
  if (!result.xs("first_token").empty()) {
    all.push_back(x_table(result, "first_token", "Time to first token",
                          "One client; prompts of so many words.", "words", {kTtft50, kTtft95}));
  }
  if (!result.xs("closed_loop").empty()) {
    all.push_back(x_table(result, "closed_loop", "Clients at once",
                          "Each client asks again when its answer has ended.", "clients",
                          {kThroughput, kTtft95, kItl95}));
  }
  if (!result.xs("open_loop").empty()) {
    all.push_back(x_table(result, "open_loop", "Arrivals at random",
                          "Requests a second, whatever is still running (Poisson).", "per second",
                          {kThroughput, kTtft95, kItl95, kE2e95}));
  }
  return all;
}

std::vector<std::string> facts(const Result& result) {
  const json& document = result.document();
  std::vector<std::string> lines;
  for (std::size_t side = 0; side < result.sides(); ++side) {
    const json& one = document.at("sides").at(side);
    lines.push_back(fmt::format("{}{} with {}", result.sides() == 1 ? "" : result.side_name(side) + ": ",
                                one.at("url").get<std::string>(), one.at("model").get<std::string>()));
  }
  const json& settings = document.at("settings");
  lines.push_back(fmt::format(
      "{}; at most {} tokens an answer, temperature {:g}, {} {}", document.at("timestamp").get<std::string>(),
      settings.at("max_tokens").get<int>(), settings.at("temperature").get<double>(),
      settings.at("cycles").get<int>(),
      settings.at("cycles").get<int>() == 1 ? "cycle" : "cycles; medians, and (least … largest) of them"));
  lines.push_back(failures_of(result));
  return lines;
}

std::string label(const Result& result, std::size_t side) {
  const json& one = result.document().at("sides").at(side);
  return result.sides() == 1
             ? one.at("model").get<std::string>()
             : fmt::format("{}: {}", result.side_name(side), one.at("model").get<std::string>());
}

void add_lines(const Result& result, std::vector<LineChart>& charts, const char* kind, const Metric& metric,
               const std::string& title, const std::string& x_label) {
  const std::vector<double> xs = result.xs(kind);
  if (xs.size() < 2) return;
  LineChart chart{.title = title, .x_label = x_label};
  for (std::size_t side = 0; side < result.sides(); ++side) {
    ChartLine line{.label = label(result, side), .points = {}};
    for (const double x : xs) {
      const std::vector<double> values = result.values(kind, x, side, metric);
      if (!values.empty()) line.points.emplace_back(x, percentile(values, 50));
    }
    chart.lines.push_back(std::move(line));
  }
  charts.push_back(std::move(chart));
}

// The share of answers within a time, from the percentiles of every run.
void add_shares(const Result& result, std::vector<LineChart>& charts, const char* curve,
                const std::string& title) {
  LineChart chart{.title = title, .x_label = "within", .seconds = true, .percent = true};
  for (std::size_t side = 0; side < result.sides(); ++side) {
    std::vector<double> all;
    for (const json& run : result.runs()) {
      if (run.at("kind") != "questions" || run.at("side") != side) continue;
      for (const json& value : run.at(curve)) all.push_back(std::max(value.get<double>() / 1e3, 1e-6));
    }
    if (all.empty()) continue;
    std::ranges::sort(all);
    ChartLine line{.label = label(result, side), .points = {}};
    for (std::size_t i = 0; i < all.size(); ++i)
      line.points.emplace_back(all[i], double(i + 1) / double(all.size()));
    chart.lines.push_back(std::move(line));
  }
  if (!chart.lines.empty()) charts.push_back(std::move(chart));
}

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is no result of `bench`: {}", name, why),
              "give a file that `mlx-serving bench quick --output` wrote");
}

}  // namespace

void check_result(const json& result, const std::string& name) {
  try {
    if (result.at("sides").empty() || result.at("sides").size() > 2)
      refuse(name, "it has no side, or more than two");
    if (result.at("runs").empty()) refuse(name, "it has no runs");
    result_text(result);
    result_svg(result);
  } catch (const json::exception& error) {
    refuse(name, error.what());
  }
}

json side_by_side(const json& a, const json& b) {
  json both = a;
  for (const json& side : b.at("sides")) both["sides"].push_back(side);
  for (json run : b.at("runs")) {
    run["side"] = 1;
    both["runs"].push_back(std::move(run));
  }
  return both;
}

std::string result_text(const json& document) {
  const Result result(document);
  std::string text;
  for (const std::string& line : facts(result)) text += line + "\n";
  for (const Table& table : tables(result)) {
    text += fmt::format("\n{}. {}\n{}", table.title, table.note, format_table(table.rows));
  }
  return text;
}

std::string result_markdown(const json& document, const std::string& image) {
  const Result result(document);
  std::string text = "# Benchmark\n\n";
  for (const std::string& line : facts(result)) text += "- " + line + "\n";
  if (!image.empty()) text += fmt::format("\n![Plots]({})\n", image);
  for (const Table& table : tables(result)) {
    text += fmt::format("\n## {}\n\n{}\n\n", table.title, table.note);
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      text += fmt::format("| {} |\n", fmt::join(table.rows[i], " | "));
      if (i > 0) continue;
      text += "|";
      for (std::size_t column = 0; column < table.rows[0].size(); ++column)
        text += column == 0 ? "---|" : "---:|";
      text += "\n";
    }
  }
  return text;
}

std::string result_svg(const json& document) {
  const Result result(document);
  std::vector<LineChart> charts;
  if (!result.xs("questions").empty()) {
    add_shares(result, charts, "ttft_curve_ms", "Questions: first token");
    add_shares(result, charts, "e2e_curve_ms", "Questions: whole answer");
  }
  add_lines(result, charts, "first_token", kTtft50, "Time to first token, p50, ms", "words of the prompt");
  add_lines(result, charts, "first_token", kTtft95, "Time to first token, p95, ms", "words of the prompt");
  for (const auto& [kind, x_label] :
       {std::pair("closed_loop", "clients at once"), std::pair("open_loop", "requests a second")}) {
    add_lines(result, charts, kind, kThroughput, "Tokens a second", x_label);
    add_lines(result, charts, kind, kTtft95, "Time to first token, p95, ms", x_label);
    add_lines(result, charts, kind, kItl95, "Between tokens, p95, ms", x_label);
  }
  return charts_svg("mlx-serving bench", charts);
}

}  // namespace mlxs::cli
