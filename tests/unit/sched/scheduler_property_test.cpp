// A million steps of random lives: arrivals of several tenants, tiers and targets, clients that leave, that
// stop reading and read again, on a pool that is too small. What must hold, whatever happens: every accepted
// request ends, a tenant's requests of one tier start in order
// (who lacks pages may be overtaken for an ageing interval), no step exceeds the budget, every decode row
// runs in every step, and a request preempted again has gained a token in between. Half of the lives plan
// steps ahead where they may. scheduler_random_test.cpp looks at pages and answers, over fewer steps.
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sched/scheduler.h"

namespace mlxs {
namespace {

constexpr int kSeeds = 8;
constexpr std::uint64_t kStepsPerSeed = 130'000;  // 1.04 million in all

class Life {
 public:
  explicit Life(std::uint32_t seed)
      : random_(seed),
        ahead_(seed / 2 % 2 == 1),
        config_{.max_running = static_cast<std::int32_t>(2 + below(14)),
                .max_queue_depth = static_cast<std::int32_t>(8 + below(60)),
                .token_budget = static_cast<std::int32_t>(16 + below(112)),
                .max_context = 320,
                .aging_interval = std::chrono::milliseconds(20 + below(2000)),
                .target_itl = seed % 3 == 0 ? std::chrono::milliseconds(8) : Duration::zero(),
                .fairness = {.enabled = seed % 4 != 1}},
        pool_({.num_pages = static_cast<std::int32_t>(24 + below(100)), .prefix_cache = seed % 2 == 0}),
        scheduler_(config_, pool_) {}

  void run(std::uint64_t wanted_steps) {
    while (steps_ < wanted_steps && !testing::Test::HasFailure()) {
      const std::uint32_t operation = below(1000);
      if (operation < 250) {
        arrive();
      } else if (operation < 262) {
        with_any([&](RequestId id) { leave(id); });
      } else if (operation < 285) {
        with_any([&](RequestId id) { pause(id); });
      } else if (operation < 320) {
        resume_any();
      } else {
        step();
      }
      if (steps_ % 5000 == 0) scheduler_.check();
    }
    for (auto& [id, request] : live_) resume(id, request);
    for (int i = 0; i < 1'000'000 && !scheduler_.idle() && !testing::Test::HasFailure(); ++i) step();
    EXPECT_TRUE(scheduler_.idle());
    EXPECT_TRUE(live_.empty()) << live_.size() << " accepted requests never ended, " << live_.begin()->first
                               << " first";
    scheduler_.check();
    const SchedulerStats stats = scheduler_.stats();
    EXPECT_EQ(stats.kv.held, 0);
    EXPECT_EQ(stats.slo.requests, stats.slo.refused + slo_ended_);
    EXPECT_LE(stats.kv.prefix_hits, stats.kv.prefix_queries);
    preemptions = stats.preemptions;
    dropped = stats.slo.refused;
    finished = stats.finished;
    steps = stats.steps;
    displaced = stats.displaced;
    steps_ahead = stats.steps_ahead;
    void_rows = stats.void_rows;
  }

  std::uint64_t preemptions = 0, dropped = 0, finished = 0, steps = 0, displaced = 0, overtakings = 0;
  std::uint64_t steps_ahead = 0, void_rows = 0;

 private:
  struct Request {
    std::int32_t wanted = 0, most = 0, sampled = 0, sampled_at_preemption = -1;
    std::pair<TenantId, int> line;  // tenant and tier
    bool paused = false, decoding = false, plain = false, started = false;
    bool has_slo = false;
    TimePoint overtaken_since = TimePoint::max();
  };

  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }

  template <class Act>
  void with_any(Act act) {
    if (live_.empty()) return;
    auto found = live_.lower_bound(1 + random_() % last_);
    if (found == live_.end()) found = live_.begin();
    act(found->first);
  }

  void arrive() {
    const RequestId id = ++last_;
    SchedRequest request{.id = id, .arrival = now_};
    const std::uint32_t length = below(8) == 0 ? 1 + below(250) : 1 + below(40);
    const auto key = static_cast<TokenId>(below(6));  // some share a prefix
    for (std::uint32_t i = 0; i < length; ++i) {
      request.prompt.push_back(i < 64 ? key * 1000 + static_cast<TokenId>(i)
                                      : static_cast<TokenId>(below(50)));
    }
    request.max_new_tokens = static_cast<std::int32_t>(1 + below(60));
    request.priority = static_cast<Priority>(below(4));
    request.tenant = below(5);
    request.tenant_weight = 1 + static_cast<double>(request.tenant);
    request.cache_salt = below(2);
    if (below(4) == 0) request.slo.ttft = std::chrono::milliseconds(1 + below(400));
    if (below(6) == 0) request.slo.tpot = std::chrono::milliseconds(1 + below(20));
    Request mine;
    mine.wanted = static_cast<std::int32_t>(1 + below(static_cast<std::uint32_t>(request.max_new_tokens)));
    mine.most = request.max_new_tokens;
    mine.line = {request.tenant, static_cast<int>(request.priority)};
    mine.has_slo = request.slo.any();
    mine.plain = !mine.has_slo;
    const bool plain = mine.plain;
    const auto line = mine.line;
    if (scheduler_.add(std::move(request), now_)) return;
    live_.emplace(id, mine);
    if (plain) lines_[line].push_back(id);
  }
  // Who pauses gives up its turn, and who is moved up for its target overtakes: neither is held to the order.
  void leave_line(RequestId id, Request& request) {
    if (!std::exchange(request.plain, false)) return;
    std::erase(lines_[request.line], id);
  }
  void leave(RequestId id) {
    scheduler_.cancel(id);
    forget(id);
  }
  void forget(RequestId id) {
    Request& request = live_.at(id);
    leave_line(id, request);
    slo_ended_ += request.has_slo;
    live_.erase(id);
  }
  void pause(RequestId id) {
    Request& request = live_.at(id);
    if (std::exchange(request.paused, true)) return;
    leave_line(id, request);
    paused_.push_back(id);
    scheduler_.pause(id);
  }
  void resume(RequestId id, Request& request) {
    if (std::exchange(request.paused, false)) scheduler_.resume(id);
  }
  void resume_any() {
    if (paused_.empty()) return;
    const std::size_t index = below(static_cast<std::uint32_t>(paused_.size()));
    const RequestId id = std::exchange(paused_[index], paused_.back());
    paused_.pop_back();
    if (const auto found = live_.find(id); found != live_.end()) resume(id, found->second);
  }

  void step() {
    if (under_way_.empty() && !begin()) {
      now_ += std::chrono::milliseconds(1);
      return;
    }
    if (ahead_ && below(20) > 0) begin_behind();
    end();
  }

  void refuse(const StepPlan& plan) {
    for (const Refusal& refusal : plan.refused) {
      EXPECT_FALSE(live_.at(refusal.request).started) << "work was burnt on " << refusal.request;
      if (refusal.cause == RefusalCause::kDeadline) --slo_ended_;  // counted as refused
      forget(refusal.request);
    }
  }

  bool begin() {
    scheduler_.plan(now_, plan_);
    refuse(plan_);
    for (const RequestId id : plan_.preempted) {
      Request& request = live_.at(id);
      EXPECT_TRUE(request.paused || request.sampled > request.sampled_at_preemption) << id << " thrashes";
      request.sampled_at_preemption = request.sampled;
      request.decoding = false;
    }
    for (const RequestId id : plan_.admitted) {
      Request& request = live_.at(id);
      if (std::exchange(request.started, true) || !request.plain) continue;
      for (const RequestId before : lines_[request.line]) {
        if (before == id) break;
        TimePoint& since = live_.at(before).overtaken_since;
        since = std::min(since, now_);
        EXPECT_LT(now_ - since, config_.aging_interval) << before << " is overtaken by " << id;
        EXPECT_EQ(plan_.blocked, QueueBlock::kPages);
        ++overtakings;
      }
      leave_line(id, request);
    }
    if (plan_.empty()) return false;
    check(plan_, {});
    under_way_.push_back(plan_);
    return true;
  }

  // Behind the step under way: who it samples for goes on, unless that is known to be its last token.
  void begin_behind() {
    std::set<RequestId> sampling;
    for (const PlannedSpan& span : under_way_.back().spans) {
      if (span.samples && live_.contains(span.request)) sampling.insert(span.request);
    }
    if (!scheduler_.plan_ahead(now_, plan_)) return;
    refuse(plan_);
    EXPECT_TRUE(plan_.preempted.empty() && plan_.admitted.empty());
    for (const PlannedSpan& span : plan_.spans) EXPECT_TRUE(sampling.contains(span.request));
    check(plan_, sampling);
    if (below(20) == 0) return scheduler_.drop_ahead();
    under_way_.push_back(plan_);
  }

  void check(const StepPlan& plan, const std::set<RequestId>& sampling) {
    EXPECT_LE(plan.total_tokens, config_.token_budget);
    EXPECT_LE(plan.spans.size(), static_cast<std::size_t>(config_.max_running));
    const auto decodes = [&](RequestId id) { return live_.at(id).decoding || sampling.contains(id); };
    std::int32_t total = 0;
    std::size_t decoding = 0;
    for (const PlannedSpan& span : plan.spans) {
      EXPECT_FALSE(live_.at(span.request).paused);
      EXPECT_GE(span.count, 1);
      total += span.count;
      decoding += decodes(span.request);
    }
    EXPECT_EQ(total, plan.total_tokens);
    EXPECT_EQ(decoding, static_cast<std::size_t>(plan.decode_rows));
    if (plan.step % 64 != 0) return;
    std::size_t due = 0;
    for (const auto& [id, request] : live_) {
      const bool ends = sampling.contains(id) && request.sampled + 1 == request.most;
      due += decodes(id) && !request.paused && !ends;
    }
    EXPECT_EQ(due, decoding) << "a decode row was delayed";
  }

  void end() {
    const StepPlan& plan = under_way_.front();
    ++steps_;
    result_.step = plan.step;
    result_.seconds = 0.002 + 1e-4 * plan.total_tokens;
    result_.spans.clear();
    ended_.clear();
    for (const PlannedSpan& span : plan.spans) {
      SpanResult& outcome = result_.spans.emplace_back(SpanResult{.request = span.request});
      const auto found = live_.find(span.request);
      if (!span.samples || found == live_.end()) continue;
      Request& request = found->second;
      outcome.token = static_cast<TokenId>(below(50));
      request.decoding = true;
      outcome.finished = ++request.sampled == request.wanted;
      if (outcome.finished) ended_.push_back(span.request);
    }
    now_ += from_seconds(result_.seconds);
    scheduler_.commit(result_);
    for (const RequestId id : ended_) forget(id);
    under_way_.pop_front();
  }

  std::mt19937_64 random_;
  bool ahead_;
  SchedulerConfig config_;
  KvPool pool_;
  Scheduler scheduler_;
  std::map<RequestId, Request> live_;
  std::map<std::pair<TenantId, int>, std::deque<RequestId>> lines_;  // accepted, not started, in order
  std::vector<RequestId> paused_, ended_;
  StepPlan plan_;
  std::deque<StepPlan> under_way_;
  StepResult result_;
  TimePoint now_{};
  RequestId last_ = 0;
  std::uint64_t steps_ = 0, slo_ended_ = 0;
};

TEST(SchedulerProperties, HoldForAMillionRandomSteps) {
  std::uint64_t preemptions = 0, dropped = 0, finished = 0, steps = 0, displaced = 0, overtakings = 0;
  std::uint64_t steps_ahead = 0, void_rows = 0;
  for (std::uint32_t seed = 0; seed < kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life life(seed);
    life.run(kStepsPerSeed);
    preemptions += life.preemptions;
    dropped += life.dropped;
    finished += life.finished;
    steps += life.steps;
    displaced += life.displaced;
    overtakings += life.overtakings;
    steps_ahead += life.steps_ahead;
    void_rows += life.void_rows;
  }
  EXPECT_GE(steps, 1'000'000u);
  EXPECT_GT(preemptions, 1000u) << "the pools are too large to prove anything";
  EXPECT_GT(dropped, 1000u);
  EXPECT_GT(displaced, 1000u);
  EXPECT_GT(overtakings, 500u);
  EXPECT_GT(finished, 50'000u);
  EXPECT_GT(steps_ahead, 10'000u);
  EXPECT_GT(void_rows, 1000u);
}

}  // namespace
}  // namespace mlxs
