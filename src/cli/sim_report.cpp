#include "cli/sim_report.h"

#include <fmt/format.h>

#include "cli/format.h"

namespace mlxs::cli {
namespace {

std::string ms(double seconds) {
  if (seconds >= 100) return fmt::format("{:.0f} s", seconds);
  return seconds >= 1 ? fmt::format("{:.2f} s", seconds) : fmt::format("{:.1f} ms", seconds * 1e3);
}
std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

nlohmann::json json_of(const Percentiles& p) {
  return {{"p50_s", p.p50}, {"p95_s", p.p95}, {"p99_s", p.p99}, {"max_s", p.max}};
}

}  // namespace

std::string sim_table(const std::vector<SimColumn>& columns) {
  std::vector<std::vector<std::string>> rows(1, {""});
  for (const SimColumn& column : columns) rows[0].push_back(column.policy.heading);
  const auto add = [&](const char* name, auto value) {
    std::vector<std::string>& row = rows.emplace_back(1, name);
    for (const SimColumn& column : columns) row.push_back(value(column.report));
  };
  using R = const SimReport&;
  add("goodput (requests/s within SLO)", [](R r) { return fmt::format("{:.2f}", r.goodput()); });
  add("requests within SLO", [](R r) { return percent(r.slo_share()); });
  add("TTFT p50", [](R r) { return ms(r.clients.ttft.p50); });
  add("TTFT p95", [](R r) { return ms(r.clients.ttft.p95); });
  add("TTFT p99", [](R r) { return ms(r.clients.ttft.p99); });
  add("ITL p50", [](R r) { return ms(r.clients.itl.p50); });
  add("ITL p95", [](R r) { return ms(r.clients.itl.p95); });
  add("ITL p99", [](R r) { return ms(r.clients.itl.p99); });
  add("ITL max", [](R r) { return ms(r.clients.itl.max); });
  add("longest wait for a token", [](R r) { return ms(r.clients.longest_wait_s); });
  add("fairness gap (tokens in a minute)", [](R r) { return fmt::format("{:.0f}", r.clients.fairness_gap); });
  add("tokens/s generated", [](R r) {
    return fmt::format("{:.0f}", static_cast<double>(r.scheduler.generated_tokens) / r.seconds);
  });
  add("busy", [](R r) { return percent(r.busy_seconds / r.seconds); });
  add("prefix hit rate", [](R r) { return percent(r.hit_rate()); });
  add("preemptions", [](R r) { return fmt::format("{}", r.scheduler.preemptions); });
  add("finished", [](R r) { return fmt::format("{}", r.clients.finished); });
  add("cancelled", [](R r) { return fmt::format("{}", r.clients.cancelled); });
  add("refused", [](R r) { return fmt::format("{}", r.clients.refused); });
  return format_table(rows);
}

nlohmann::json sim_json(const SimColumn& column) {
  const SimReport& r = column.report;
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
  return {{"policy", column.policy.name},
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
          {"prompt_tokens", r.scheduler.prompt_tokens},
          {"cached_prompt_tokens", r.scheduler.cached_prompt_tokens},
          {"generated_tokens", r.scheduler.generated_tokens},
          {"computed_tokens", r.computed_tokens},
          {"prefix_hit_rate", r.hit_rate()},
          {"tenants", tenants}};
}

}  // namespace mlxs::cli
