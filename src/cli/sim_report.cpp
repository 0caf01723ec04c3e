#include "cli/sim_report.h"

#include <fmt/format.h>

#include "cli/format.h"
#include "cli/svg_chart.h"

namespace mlxs::cli {
namespace {

std::string ms(double seconds) {
  if (seconds >= 100) return fmt::format("{:.0f} s", seconds);
  return seconds >= 1 ? fmt::format("{:.2f} s", seconds) : fmt::format("{:.1f} ms", seconds * 1e3);
}
std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

nlohmann::json json_of(const LatencyHistogram& durations) {
  const Percentiles p = durations.percentiles();
  return {{"p50_s", p.p50}, {"p95_s", p.p95}, {"p99_s", p.p99}, {"max_s", p.max}};
}

}  // namespace

std::string sim_table(std::span<const SimRun> runs) {
  std::vector<std::vector<std::string>> rows(1, {""});
  for (const SimRun& run : runs) rows[0].push_back(run.policy.heading);
  const auto add = [&](const char* name, auto value) {
    std::vector<std::string>& row = rows.emplace_back(1, name);
    for (const SimRun& run : runs) row.push_back(value(run.report));
  };
  using R = const SimReport&;
  add("goodput (requests/s within SLO)", [](R r) { return fmt::format("{:.2f}", r.goodput()); });
  add("requests within SLO", [](R r) { return percent(r.slo_share()); });
  add("TTFT p50", [](R r) { return ms(r.clients.ttft.percentiles().p50); });
  add("TTFT p95", [](R r) { return ms(r.clients.ttft.percentiles().p95); });
  add("TTFT p99", [](R r) { return ms(r.clients.ttft.percentiles().p99); });
  add("ITL p50", [](R r) { return ms(r.clients.itl.percentiles().p50); });
  add("ITL p95", [](R r) { return ms(r.clients.itl.percentiles().p95); });
  add("ITL p99", [](R r) { return ms(r.clients.itl.percentiles().p99); });
  add("ITL max", [](R r) { return ms(r.clients.itl.percentiles().max); });
  add("longest wait for a token", [](R r) { return ms(r.clients.longest_wait_s); });
  add("fairness gap (tokens in a minute)", [](R r) { return fmt::format("{:.0f}", r.clients.fairness_gap); });
  add("tokens/s generated", [](R r) {
    return fmt::format("{:.0f}", static_cast<double>(r.scheduler.generated_tokens) / r.seconds);
  });
  add("busy", [](R r) { return percent(r.busy_seconds / r.seconds); });
  add("prefix hit rate", [](R r) { return percent(r.hit_rate()); });
  add("preemptions (swapped)",
      [](R r) { return fmt::format("{} ({})", r.scheduler.preemptions, r.scheduler.swaps); });
  add("tokens computed again", [](R r) { return percent(r.recomputed_share()); });
  add("finished", [](R r) { return fmt::format("{}", r.clients.finished); });
  add("cancelled", [](R r) { return fmt::format("{}", r.clients.cancelled); });
  add("refused", [](R r) { return fmt::format("{}", r.clients.refused); });
  return format_table(rows);
}

std::string sim_rate_table(std::span<const SimRun> runs, std::size_t policies) {
  std::vector<std::vector<std::string>> rows(1, {"goodput (requests/s within SLO) at"});
  for (const SimRun& run : runs.first(policies)) rows[0].push_back(run.policy.heading);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (i % policies == 0) rows.push_back({fmt::format("{:g} requests/s", runs[i].requests_per_s)});
    rows.back().push_back(fmt::format("{:.2f}", runs[i].report.goodput()));
  }
  return format_table(rows);
}

nlohmann::json sim_json(const SimRun& run) {
  const SimReport& r = run.report;
  nlohmann::json tenants = nlohmann::json::array();
  for (const TenantReport& t : r.clients.tenants) {
    tenants.push_back({{"tenant", t.name},
                       {"submitted", t.submitted},
                       {"finished", t.finished},
                       {"cancelled", t.cancelled},
                       {"refused", t.refused},
                       {"within_slo", t.within_slo},
                       {"service", t.service},
                       {"ttft", json_of(t.ttft)}});
  }
  return {{"policy", run.policy.name},
          {"requests_per_s", run.requests_per_s},
          {"goodput", r.goodput()},
          {"slo_share", r.slo_share()},
          {"ttft", json_of(r.clients.ttft)},
          {"itl", json_of(r.clients.itl)},
          {"itl_within_target", r.clients.itl_within_target},
          {"longest_wait_s", r.clients.longest_wait_s},
          {"fairness_gap", r.clients.fairness_gap},
          {"seconds", r.seconds},
          {"busy_seconds", r.busy_seconds},
          {"steps", r.scheduler.steps},
          {"submitted", r.clients.submitted},
          {"finished", r.clients.finished},
          {"cancelled", r.clients.cancelled},
          {"refused", r.clients.refused},
          {"within_slo", r.clients.within_slo},
          {"preemptions", r.scheduler.preemptions},
          {"swaps", r.scheduler.swaps},
          {"overtakings", r.scheduler.overtakings},
          {"displaced", r.scheduler.displaced},
          {"prompt_tokens", r.scheduler.prompt_tokens},
          {"cached_prompt_tokens", r.scheduler.cached_prompt_tokens},
          {"generated_tokens", r.scheduler.generated_tokens},
          {"computed_tokens", r.computed_tokens},
          {"prefix_hit_rate", r.hit_rate()},
          {"tenants", tenants}};
}

std::string sim_figure(const std::string& title, std::span<const SimRun> runs, std::size_t policies,
                       const SloTargets& slo) {
  std::vector<LineChart> charts;
  if (runs.size() > policies) {
    charts.push_back({.title = "requests a second within SLO", .x_label = "requests a second"});
    charts.push_back({.title = "requests within SLO", .x_label = "requests a second", .percent = true});
    for (std::size_t i = 0; i < policies; ++i) {
      ChartLine goodput{.label = runs[i].policy.heading}, share = goodput;
      for (std::size_t j = i; j < runs.size(); j += policies) {
        goodput.points.emplace_back(runs[j].requests_per_s, runs[j].report.goodput());
        share.points.emplace_back(runs[j].requests_per_s, runs[j].report.slo_share());
      }
      charts[0].lines.push_back(std::move(goodput));
      charts[1].lines.push_back(std::move(share));
    }
    return charts_svg(title, charts);
  }
  const auto add = [&](std::string name, const char* what, double mark, auto durations) {
    LineChart& chart = charts.emplace_back(LineChart{
        .title = std::move(name), .x_label = what, .seconds = true, .percent = true, .x_mark = mark});
    for (const SimRun& run : runs) chart.lines.push_back({run.policy.heading, durations(run).cumulative()});
  };
  const std::vector<TenantReport>& tenants = runs.front().report.clients.tenants;
  for (std::size_t t = 0; t < tenants.size(); ++t) {
    add(tenants.size() > 1 ? tenants[t].name + ": first tokens" : "first tokens", "at most this long",
        slo.ttft_s, [t](const SimRun& run) { return run.report.clients.tenants[t].ttft; });
  }
  add("gaps between tokens", "at most this long", slo.tpot_s,
      [](const SimRun& run) { return run.report.clients.itl; });
  return charts_svg(title, charts);
}

}  // namespace mlxs::cli
