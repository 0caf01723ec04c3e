// The step loop without a model: tokens are made up, time passes as the cost model says.
#include "sched/simulator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <unordered_map>
#include <utility>

#include "kv/chain_hash.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

Duration from_seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// Durations in buckets that grow by 2 %, from 1 µs to weeks.
class Histogram {
 public:
  void add(double seconds) {
    const double bucket = std::log(std::max(seconds, kLowest) / kLowest) / std::log(kGrowth);
    ++counts_[std::min(static_cast<std::size_t>(bucket), counts_.size() - 1)];
    ++total_;
    max_ = std::max(max_, seconds);
  }
  Percentiles percentiles() const { return {quantile(0.50), quantile(0.95), quantile(0.99), max_}; }

 private:
  static constexpr double kLowest = 1e-6, kGrowth = 1.02;

  double quantile(double q) const {
    const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(total_)));
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      below += counts_[i];
      if (below >= rank && below > 0)
        return std::min(max_, kLowest * std::pow(kGrowth, static_cast<double>(i + 1)));
    }
    return max_;
  }

  std::array<std::uint64_t, 1400> counts_{};
  std::uint64_t total_ = 0;
  double max_ = 0;
};

struct Live {
  TimePoint arrival{}, last_token{};
  std::int32_t produced = 0, wanted = 0;
};

// The standard library's distributions differ between platforms; its engines do not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t bits() { return engine_(); }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }  // [0, 1)
  double exponential() { return -std::log1p(-uniform()); }                     // mean 1
  std::int32_t length(std::int32_t mean) {
    return std::max(1, static_cast<std::int32_t>(std::lround(mean * std::min(8.0, exponential()))));
  }

 private:
  std::mt19937_64 engine_;
};

TokenId any_token(std::uint64_t bits) { return static_cast<TokenId>(bits & 0xffff); }

}  // namespace

Traffic poisson_traffic(const PoissonTraffic& traffic) {
  struct State {
    PoissonTraffic traffic;
    Random random;
    RequestId next = 1;
    double arrival_s = 0;
  };
  auto state = std::make_shared<State>(State{.traffic = traffic, .random = Random(traffic.seed)});
  return [state]() -> std::optional<SimRequest> {
    const PoissonTraffic& t = state->traffic;
    Random& random = state->random;
    if (state->next > static_cast<RequestId>(t.requests)) return std::nullopt;
    state->arrival_s += random.exponential() / t.requests_per_s;
    const bool is_long = random.uniform() < t.long_share;
    const std::int32_t own = is_long ? t.long_prompt : random.length(t.mean_prompt);
    SimRequest out;
    out.output_tokens = random.length(t.mean_output);
    out.request.id = state->next++;
    out.request.max_new_tokens = out.output_tokens;
    out.request.priority = t.priority;
    out.request.arrival = TimePoint{} + from_seconds(state->arrival_s);
    out.request.prompt.reserve(static_cast<std::size_t>(t.system_prompt + own));
    for (std::int32_t i = 0; i < t.system_prompt; ++i) {
      out.request.prompt.push_back(any_token(mix64(t.seed ^ static_cast<std::uint64_t>(i))));
    }
    for (std::int32_t i = 0; i < own; ++i) out.request.prompt.push_back(any_token(random.bits()));
    return out;
  };
}

SimReport simulate(const SchedulerConfig& config, const KvPoolConfig& kv, const CostModel& cost,
                   const Traffic& traffic,
                   const std::function<void(TimePoint, const StepPlan&, const Scheduler&)>& observe) {
  KvPool pool(kv);
  Scheduler scheduler(config, pool);
  ManualClock clock;
  std::unordered_map<RequestId, Live> live;
  Histogram ttft, itl;
  SimReport report;
  StepPlan plan;
  StepResult result;

  std::optional<SimRequest> next = traffic();
  while (next || !scheduler.idle()) {
    if (scheduler.idle() && next->request.arrival > clock.now())
      clock.advance(next->request.arrival - clock.now());
    for (; next && next->request.arrival <= clock.now(); next = traffic()) {
      const RequestId id = next->request.id;
      const Live state{.arrival = next->request.arrival, .wanted = next->output_tokens};
      if (!scheduler.add(std::move(next->request))) live.emplace(id, state);
    }
    scheduler.plan(clock.now(), plan);
    if (observe) observe(clock.now(), plan, scheduler);
    if (plan.empty()) {
      if (scheduler.idle()) continue;  // everything that arrived was refused
      throw Error(ErrorCode::kInternal, "simulator: requests wait and none can run",
                  "this is a bug; please report it");
    }

    result.step = plan.step;
    result.seconds = cost.step_s + cost.token_s * plan.total_tokens;
    clock.advance(from_seconds(result.seconds));
    result.spans.clear();
    for (const PlannedSpan& span : plan.spans) {
      SpanResult& outcome = result.spans.emplace_back(SpanResult{.request = span.request});
      if (!span.samples) continue;
      Live& request = live.at(span.request);
      const bool is_first = request.produced++ == 0;
      (is_first ? ttft : itl)
          .add(to_seconds(clock.now() - (is_first ? request.arrival : request.last_token)));
      request.last_token = clock.now();
      outcome.token = any_token(mix64(span.request << 20 ^ static_cast<std::uint64_t>(request.produced)));
      outcome.finished = request.produced == request.wanted;
      if (outcome.finished) live.erase(span.request);
    }
    report.computed_tokens += static_cast<std::uint64_t>(plan.total_tokens);
    scheduler.commit(result);
  }
  report.scheduler = scheduler.stats();
  report.seconds = to_seconds(clock.now() - TimePoint{});
  report.ttft = ttft.percentiles();
  report.itl = itl.percentiles();
  return report;
}

}  // namespace mlxs
