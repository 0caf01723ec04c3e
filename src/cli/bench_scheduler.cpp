#include "cli/bench_scheduler.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <vector>

#include "base/percentile.h"
#include "kv/chain_hash.h"
#include "sched/scheduler.h"

namespace mlxs::cli {
namespace {

constexpr int kWarmUpSteps = 1000;

using BenchClock = std::chrono::steady_clock;

double microseconds_since(BenchClock::time_point start) {
  return std::chrono::duration<double, std::micro>(BenchClock::now() - start).count();
}

// Prompt tokens of a step that keep all places answering: an answer has half its most tokens on average, so
// that each step a share of the places gets a new prompt; and some more, to fill them at first.
int prefill_budget(const SchedulerBench& what) {
  const double ends = 2.0 * what.running / (what.answer_tokens + 1);
  return static_cast<int>(1.5 * ends * what.prompt_tokens) + 512;
}

// The engine without a model: every row that samples gets a token at once.
class Load {
 public:
  explicit Load(const SchedulerBench& what)
      : what_(what),
        pool_({.num_pages =
                   (what.running + 8) * KvPool::pages_for(what.prompt_tokens + what.answer_tokens) + 8192}),
        scheduler_({.max_running = what.running,
                    .max_queue_depth = what.waiting + what.running + 1,
                    .token_budget = what.running + prefill_budget(what),
                    .max_context = what.prompt_tokens + what.answer_tokens},
                   pool_) {}

  void refill() {
    while (waiting_ < what_.waiting) {
      SchedRequest request = next_request();
      const auto start = BenchClock::now();
      scheduler_.add(std::move(request), now_);
      add_us_ += microseconds_since(start);
      ++adds_;
      ++waiting_;
    }
  }

  double step() {
    const auto planning = BenchClock::now();
    scheduler_.plan(now_, plan_);
    double spent = microseconds_since(planning);
    waiting_ -= static_cast<int>(plan_.admitted.size());
    result_.step = plan_.step;
    result_.seconds = 0.01;
    result_.spans.clear();
    for (const PlannedSpan& span : plan_.spans) {
      SpanResult& outcome = result_.spans.emplace_back(SpanResult{.request = span.request});
      if (!span.samples) continue;
      int& left = left_[span.request];
      outcome.token = static_cast<TokenId>(mix64(span.request * 4096 + static_cast<unsigned>(left)) & 0xffff);
      outcome.finished = --left == 0;
      if (outcome.finished) left_.erase(span.request);
    }
    now_ += std::chrono::milliseconds(10);
    const auto committing = BenchClock::now();
    scheduler_.commit(result_);
    spent += microseconds_since(committing);
    return spent;
  }

  const StepPlan& plan() const { return plan_; }
  const Scheduler& scheduler() const { return scheduler_; }
  double mean_add_us() const { return adds_ > 0 ? add_us_ / adds_ : 0; }
  void forget_adds() { add_us_ = adds_ = 0; }

 private:
  SchedRequest next_request() {
    const RequestId id = ++last_;
    SchedRequest request{.id = id,
                         .prompt = {},
                         .max_new_tokens = what_.answer_tokens,
                         .priority = static_cast<Priority>(1 + id % 3),
                         .arrival = now_,
                         .tenant = id % static_cast<unsigned>(what_.tenants)};
    for (int i = 0; i < what_.prompt_tokens; ++i)
      request.prompt.push_back(static_cast<TokenId>(mix64(id << 16 ^ static_cast<unsigned>(i)) & 0xffff));
    // Of all lengths, as if the load had run for long.
    left_[id] = 1 + static_cast<int>(mix64(id) % static_cast<unsigned>(what_.answer_tokens));
    return request;
  }

  const SchedulerBench& what_;
  KvPool pool_;
  Scheduler scheduler_;
  StepPlan plan_;
  StepResult result_;
  std::unordered_map<RequestId, int> left_;  // tokens until a stop condition
  TimePoint now_{};
  RequestId last_ = 0;
  int waiting_ = 0;
  double add_us_ = 0, adds_ = 0;
};

int print_scheduler(const SchedulerFigures& figures, const SchedulerBench& what, bool json) {
  const SchedulerCost& step = figures.step;
  if (json) {
    fmt::print(
        "{}\n",
        nlohmann::json{
            {"running", what.running},
            {"waiting", what.waiting},
            {"tenants", what.tenants},
            {"step_us",
             {{"p50", step.p50_us}, {"p95", step.p95_us}, {"p99", step.p99_us}, {"mean", step.mean_us}}},
            {"add_us", figures.add_us},
            {"decode_rows", figures.decode_rows},
            {"spans", figures.spans},
            {"admitted", figures.admitted},
            {"preemptions", figures.preemptions}}
            .dump());
    return 0;
  }
  fmt::print(
      "{} running, {} waiting of {} tenants: {:.1f} us a step (p50; p95 {:.1f}, p99 {:.1f}), {:.1f} us an "
      "arrival\n{:.1f} decode rows and {:.1f} prompt chunks a step, {:.2f} admitted\n",
      what.running, what.waiting, what.tenants, step.p50_us, step.p95_us, step.p99_us, figures.add_us,
      figures.decode_rows, figures.spans - figures.decode_rows, figures.admitted);
  return 0;
}

}  // namespace

SchedulerFigures run_scheduler(const SchedulerBench& what) {
  Load load(what);
  load.refill();
  for (int i = 0; i < kWarmUpSteps; ++i) {  // until the machine is full
    load.step();
    load.refill();
  }
  load.forget_adds();
  SchedulerFigures figures;
  std::vector<double> times;
  for (int i = 0; i < what.steps; ++i) {
    times.push_back(load.step());
    figures.step.mean_us += times.back() / what.steps;
    figures.decode_rows += static_cast<double>(load.plan().decode_rows) / what.steps;
    figures.spans += static_cast<double>(load.plan().spans.size()) / what.steps;
    figures.admitted += static_cast<double>(load.plan().admitted.size()) / what.steps;
    load.refill();
  }
  figures.step.p50_us = percentile(times, 50);
  figures.step.p95_us = percentile(times, 95);
  figures.step.p99_us = percentile(times, 99);
  figures.add_us = load.mean_add_us();
  figures.preemptions = load.scheduler().stats().preemptions;
  return figures;
}

void add_scheduler_bench(CLI::App& bench, Action& action) {
  struct Flags {
    SchedulerBench what;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand("scheduler", "What planning a step costs, without a model");
  const auto add = [&](const char* name, int& value, int least, int most, const char* about) {
    command->add_option(name, value, about)->check(CLI::Range(least, most))->capture_default_str();
  };
  add("--running", flags->what.running, 1, 4096, "Answers that run in every step");
  add("--waiting", flags->what.waiting, 0, 1 << 20, "Requests that wait");
  add("--tenants", flags->what.tenants, 1, 4096, "Whose they are, in turn");
  add("--prompt-tokens", flags->what.prompt_tokens, 1, 1 << 20, "Prompt tokens of each");
  add("--tokens", flags->what.answer_tokens, 1, 1 << 20, "Generated tokens of each, at most");
  add("--steps", flags->what.steps, 1, 1 << 24, "Steps that are measured");
  command->add_flag("--json", flags->json, "One JSON object");
  command->footer("Examples:\n  mlx-serving bench scheduler\n  mlx-serving bench scheduler --waiting 10000");
  command->callback([flags, &action] {
    action = [flags] { return print_scheduler(run_scheduler(flags->what), flags->what, flags->json); };
  });
}

}  // namespace mlxs::cli
