// The same scheduler under hours of traffic, in virtual time.
#include "sim/simulator.h"

#include <gtest/gtest.h>

#include "sim/generated_traffic.h"
#include "sim/policies.h"
#include "sim/scenarios.h"

namespace mlxs {
namespace {

const CostModel kCost{.fixed_s = 4e-3, .weights_s = 0, .token_s = 1e-4};

SimReport simulate_stream(const SchedulerConfig& config, std::int32_t pages, const TrafficStream& stream,
                          const PlanObserver& observe = {}) {
  const auto traffic = generated_traffic({&stream, 1}, 1);
  return simulate({.scheduler = config, .kv = {.num_pages = pages}, .cost = kCost}, *traffic, observe);
}

TEST(Simulator, ADayOfTrafficFinishesWithEveryTokenComputedOnce) {
  const TrafficStream day{
      .requests_per_s = 20000 / 86400.0, .requests = 20000, .mean_prompt = 60, .mean_output = 40};
  const SimReport report = simulate_stream({}, 8192, day);
  EXPECT_NEAR(report.seconds, 86400, 3000);
  EXPECT_EQ(report.scheduler.finished, 20000u);
  EXPECT_EQ(report.scheduler.preemptions, 0u);
  EXPECT_EQ(report.scheduler.kv.held, 0);
  // The last token of an answer is sampled and never computed.
  EXPECT_EQ(report.computed_tokens,
            report.scheduler.prompt_tokens + report.scheduler.generated_tokens - report.scheduler.finished);
}

TEST(Simulator, SameInputsSameReport) {
  const TrafficStream traffic{.requests_per_s = 40, .requests = 500, .long_share = 0.05};
  const auto run = [&] {
    std::vector<StepPlan> plans;
    simulate_stream({}, 400, traffic,
                    [&](TimePoint, const StepPlan& plan, const Scheduler&) { plans.push_back(plan); });
    return plans;
  };
  EXPECT_EQ(run(), run());
}

// What the token budget is for: while 8,000-token prompts arrive, no running answer waits longer than one
// full step.
TEST(Simulator, LongPromptsDoNotStallRunningAnswers) {
  const TrafficStream traffic{.requests_per_s = 3, .requests = 1500, .long_share = 0.02, .long_prompt = 8000};
  const auto longest_gap = [&](std::int32_t budget) {
    const SchedulerConfig config{.token_budget = budget, .max_context = 16384};
    return simulate_stream(config, 8192, traffic).clients.itl.percentiles().max;
  };
  EXPECT_LE(longest_gap(512), kCost.fixed_s + 512 * kCost.token_s + 1e-9);
  EXPECT_GE(longest_gap(16384), 4000 * kCost.token_s) << "a whole prompt in one step";
}

// On a machine where large steps are cheaper by the token: prompts gain, and answers keep their pace.
TEST(Simulator, LargeStepsBesideAnswersKeepTheirBound) {
  const TrafficStream traffic{.requests_per_s = 3, .requests = 1000, .long_share = 0.1, .long_prompt = 8000};
  const auto run = [&](std::int32_t budget, bool bounded) {
    const SchedulerConfig config{.token_budget = budget,
                                 .max_context = 16384,
                                 .sure_budget = bounded ? 512 : 0,
                                 .large_step = std::chrono::milliseconds(100)};
    const CostModel cost{.fixed_s = 30e-3, .weights_s = 0, .token_s = 6e-5};
    return simulate({.scheduler = config, .kv = {.num_pages = 16384}, .cost = cost},
                    *generated_traffic({&traffic, 1}, 1));
  };
  const SimReport fixed = run(512, false), large = run(8192, false), ours = run(8192, true);
  EXPECT_LE(ours.clients.itl.percentiles().max, 0.1);
  EXPECT_GT(large.clients.itl.percentiles().max, 0.2);
  EXPECT_LT(ours.clients.ttft.percentiles().p95, 0.9 * fixed.clients.ttft.percentiles().p95);
}

TEST(Simulator, AShortPromptsFirstTokenDoesNotWaitForLongPrompts) {
  const TrafficStream traffic{
      .requests_per_s = 4, .requests = 2000, .mean_output = 20, .long_share = 0.05, .long_prompt = 8000};
  const SimReport report = simulate_stream({.max_context = 16384}, 16384, traffic);
  EXPECT_GT(report.clients.ttft.percentiles().max, 4000 * kCost.token_s) << "long prompts arrive";
  EXPECT_LT(report.clients.ttft.percentiles().p50, 0.1);
}

TEST(Simulator, ASharedSystemPromptIsComputedOnce) {
  const TrafficStream traffic{.requests_per_s = 20, .requests = 2000, .system_prompt = 1024};
  const SimReport report = simulate_stream({}, 8192, traffic);
  EXPECT_GE(report.scheduler.cached_prompt_tokens, 1999u * 1024);
}

// Ten times more work than the machine can do, and a pool for a fifth of the slots: all are served, and
// preemption computes few tokens again.
TEST(Simulator, OverloadOnASmallPoolWastesLittle) {
  const TrafficStream traffic{.requests_per_s = 60, .requests = 1500, .mean_output = 500};
  const SimReport report = simulate_stream({.max_queue_depth = 2000}, 800, traffic);
  EXPECT_EQ(report.scheduler.finished, 1500u);
  EXPECT_GT(report.scheduler.preemptions, 100u);
  const auto needed =
      report.scheduler.prompt_tokens + report.scheduler.generated_tokens - report.scheduler.finished;
  EXPECT_LT(static_cast<double>(report.computed_tokens), 1.15 * static_cast<double>(needed));
}

SimReport simulate_scenario(const char* name, const char* policy, ScenarioSize size) {
  SimSetup setup{.scheduler = {.max_running = 256, .token_budget = 512, .max_context = size.max_context},
                 .kv = {.num_pages = 50'000},
                 .cost = h200_cost()};
  for (const SimPolicy& known : sim_policies()) {
    if (known.name == policy) setup = with_policy(setup, known);
  }
  const auto streams = scenario(name, size);
  return simulate(setup, *generated_traffic(streams, 1));
}

// One tenant sends ten times as much as the machine's other two together, for a minute.
TEST(Simulator, AFloodCostsTheOtherTenantsNothing) {
  const ScenarioSize size{.requests_per_s = 8, .seconds = 180};
  const SimReport fcfs = simulate_scenario("flood", "fcfs", size);
  const SimReport ours = simulate_scenario("flood", "ours", size);
  ASSERT_EQ(ours.clients.tenants.size(), 3u);
  for (const TenantReport& tenant : ours.clients.tenants) {
    if (tenant.name == "flood") {
      EXPECT_GT(tenant.refused, 1000u) << "no flood";
      continue;
    }
    EXPECT_EQ(tenant.refused, 0u) << tenant.name;
    EXPECT_GE(static_cast<double>(tenant.within_slo), 0.99 * static_cast<double>(tenant.finished))
        << tenant.name;
    EXPECT_LT(tenant.ttft.percentiles().p99, 1.0) << tenant.name;
  }
  EXPECT_GT(fcfs.clients.tenants[0].ttft.percentiles().p95, 5.0) << "in order of arrival it costs them a lot";
  const auto pace = [](const SimReport& r) {
    return static_cast<double>(r.scheduler.generated_tokens) / r.seconds;
  };
  EXPECT_GE(pace(ours), 0.98 * pace(fcfs));
}

// Four times as much as the machine can do, of four kinds of clients: all that were taken get their answer.
TEST(Simulator, NobodyStarvesUnderOverload) {
  const SimReport report = simulate_scenario("mixed", "ours", {.requests_per_s = 30, .seconds = 300});
  EXPECT_GT(report.clients.refused, 500u) << "no overload";
  EXPECT_EQ(report.clients.finished + report.clients.cancelled + report.clients.refused,
            report.clients.submitted);
  for (const TenantReport& tenant : report.clients.tenants) {
    EXPECT_GT(tenant.finished, tenant.submitted / 20) << tenant.name;
    EXPECT_LT(tenant.ttft.percentiles().max, 700) << tenant.name << ": what 1,000 places take";
  }
  EXPECT_LT(report.clients.tenants[0].ttft.percentiles().max, 5) << "critical ones do not even wait";
}

TEST(Simulator, GoodputIsTwiceThatOfWholePromptsInOrderOfArrival) {
  const ScenarioSize size{.requests_per_s = 12, .seconds = 240};
  const SimReport whole = simulate_scenario("long", "fcfs-whole", size);
  const SimReport ours = simulate_scenario("long", "ours", size);
  EXPECT_GE(ours.goodput(), 2 * whole.goodput());
  EXPECT_LE(ours.clients.itl.percentiles().p99, 1.5 * SloTargets{}.tpot_s) << "while 32k prompts arrive";
}

// What the window costs: the seeds allow 6 ms of the first token. Values of the three presets.
TEST(Simulator, AnAdmissionWindowDelaysFirstTokensByLessThan6Ms) {
  const AdmissionWindowOptions presets[] = {
      {.enabled = true, .window_ms = 0.75, .batch_size = 2, .adaptive = {.enabled = false}},
      {.enabled = true, .window_ms = 1, .batch_size = 4, .auto_tune = {.enabled = true}},
      {.enabled = true, .window_ms = 2, .batch_size = 8, .auto_tune = {.enabled = true, .max_batch = 16}}};
  for (const double rate : {1.0, 20.0}) {
    const auto ttft = [rate](const AdmissionWindowOptions& window) {
      SimSetup setup{.scheduler = {.max_running = 256, .window = window},
                     .kv = {.num_pages = 50'000},
                     .cost = h200_cost()};
      const auto streams = scenario("steady", {.requests_per_s = rate, .seconds = 100});
      return simulate(setup, *generated_traffic(streams, 1)).clients.ttft.percentiles();
    };
    const Percentiles without = ttft({});
    for (const AdmissionWindowOptions& window : presets) {
      const Percentiles with = ttft(window);
      EXPECT_LT(with.p50 - without.p50, 0.006) << window.window_ms << " ms, " << rate << " requests/s";
      EXPECT_LT(with.p99 - without.p99, 0.006 + 0.03 * without.p99) << window.window_ms;
    }
  }
}

TEST(Simulator, AnAdmissionWindowHoldsAndLosesNobody) {
  const TrafficStream traffic{.requests_per_s = 20, .requests = 400};
  const SimReport report = simulate_stream({.window = {.enabled = true, .window_ms = 5}}, 8192, traffic);
  EXPECT_EQ(report.scheduler.finished, 400u);
  EXPECT_GT(report.scheduler.window.fast_path + report.scheduler.window.normal, 100u);
}

TEST(Simulator, RefusedRequestsEndNothingElse) {
  const TrafficStream traffic{.requests_per_s = 50, .requests = 500, .mean_prompt = 100, .mean_output = 100};
  const SimReport report = simulate_stream({.max_queue_depth = 3}, 60, traffic);
  EXPECT_GT(report.scheduler.refused, 0u);
  EXPECT_EQ(report.scheduler.refused + report.scheduler.finished, 500u);
}

}  // namespace
}  // namespace mlxs
