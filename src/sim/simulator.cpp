// The step loop without a model: tokens are made up, time passes as the cost model says.
#include "sim/simulator.h"

#include <fmt/format.h>

#include <deque>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

void require(bool holds, const char* broken, RequestId id = 0) {
  if (holds) return;
  throw Error(ErrorCode::kInternal, fmt::format("simulator: {} (request {})", broken, id),
              "this is a bug; please report it");
}

class Simulation {
 public:
  Simulation(const SimSetup& setup, Traffic& traffic)
      : setup_(setup),
        traffic_(traffic),
        pool_(setup.kv),
        scheduler_(setup.scheduler, pool_),
        metrics_(setup.slo, traffic.tenants()) {}

  SimReport run(const PlanObserver& observe) {
    while (true) {
      receive();
      leave();
      if (scheduler_.idle()) {
        const auto next = traffic_.next_arrival();
        if (!next) break;
        clock_.advance(std::max(*next - clock_.now(), Duration::zero()));
        metrics_.advance(clock_.now());
        continue;
      }
      scheduler_.plan(clock_.now(), plan_);
      if (observe) observe(clock_.now(), plan_, scheduler_);
      for (const Refusal& refusal : plan_.refused) end(refusal.request, SimEnd::kRefused);
      copy_pages();
      if (!plan_.empty()) {
        step();
      } else if (plan_.held_until) {
        hold();
      } else {
        require(scheduler_.idle(), "requests wait and none can run");
      }
    }
    return report();
  }

 private:
  struct Live {
    SimMetrics::Request metrics;
    std::int32_t wanted = 0;  // tokens until its stop condition
    bool ended = false;
  };
  struct Leaving {
    TimePoint at;
    RequestId id;
    bool operator>(const Leaving& other) const { return std::pair(at, id) > std::pair(other.at, other.id); }
  };

  Live& live(RequestId id) {
    require(id >= first_id_ && id - first_id_ < live_.size() && !live_[id - first_id_].ended,
            "a request was planned after its end", id);
    return live_[id - first_id_];
  }

  void receive() {
    for (auto at = traffic_.next_arrival(); at && *at <= clock_.now(); at = traffic_.next_arrival()) {
      const RequestId id = first_id_ + live_.size();
      SimRequest next = traffic_.take(id);
      next.request.id = id;
      next.request.arrival = *at;
      next.request.cache_salt =
          static_cast<std::uint64_t>(next.tenant);  // as in the engine: nobody's cache but one's own
      next.request.tenant = static_cast<TenantId>(next.tenant);
      if (setup_.ignore_priorities) next.request.priority = Priority::kNormal;
      Live& added = live_.emplace_back(
          Live{.metrics = {.arrival = *at,
                           .prompt_tokens = static_cast<std::int32_t>(next.request.prompt.size()),
                           .tenant = next.tenant},
               .wanted = next.output_tokens});
      metrics_.submitted(added.metrics);
      if (scheduler_.add(std::move(next.request), clock_.now())) {
        end(id, SimEnd::kRefused);
      } else if (next.patience != Duration::max()) {
        leaving_.push({*at + next.patience, id});
      }
    }
  }

  // Clients who gave up, between two steps as in the engine.
  void leave() {
    for (; !leaving_.empty() && leaving_.top().at <= clock_.now(); leaving_.pop()) {
      const RequestId id = leaving_.top().id;
      if (id < first_id_ || live_[id - first_id_].ended) continue;
      scheduler_.cancel(id);
      end(id, SimEnd::kCancelled);
    }
  }

  // Those that wait are held for others to join: until the next arrival, or the window's end.
  void hold() {
    TimePoint until = *plan_.held_until;
    if (const auto next = traffic_.next_arrival()) until = std::min(until, *next);
    clock_.advance(std::max(until - clock_.now(), Duration(std::chrono::microseconds(1))));
    metrics_.advance(clock_.now());
  }

  void copy_pages() {
    const auto copies = static_cast<double>(plan_.swap_out.size() + plan_.swap_in.size());
    result_.copy_seconds = copies * setup_.cost.page_copy_s;
    busy_seconds_ += result_.copy_seconds;
    clock_.advance(from_seconds(result_.copy_seconds));
  }

  void step() {
    for (const RequestId id : plan_.preempted) metrics_.set_waiting(live(id).metrics, true);
    for (const PlannedSpan& span : plan_.spans) metrics_.set_waiting(live(span.request).metrics, false);
    result_.step = plan_.step;
    result_.seconds = setup_.cost.seconds(shape_of(plan_));
    clock_.advance(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(result_.seconds)));
    metrics_.advance(clock_.now());
    result_.spans.clear();
    finished_.clear();
    for (std::size_t i = 0; i < plan_.spans.size(); ++i) {
      const PlannedSpan& span = plan_.spans[i];
      SpanResult& outcome = result_.spans.emplace_back(SpanResult{.request = span.request});
      Live& request = live(span.request);
      if (i >= static_cast<std::size_t>(plan_.decode_rows)) metrics_.computed(request.metrics, span.count);
      if (!span.samples) continue;
      outcome.token = answer_token(span.request, request.metrics.produced);
      metrics_.token(request.metrics, clock_.now());
      outcome.finished = request.metrics.produced == request.wanted;
      if (outcome.finished) finished_.push_back(span.request);
    }
    computed_tokens_ += static_cast<std::uint64_t>(plan_.total_tokens);
    busy_seconds_ += result_.seconds;
    scheduler_.commit(result_);
    for (const RequestId id : finished_) end(id, SimEnd::kFinished);
  }

  void end(RequestId id, SimEnd how) {
    Live& request = live(id);
    metrics_.ended(request.metrics, how, clock_.now());
    request.ended = true;
    for (; !live_.empty() && live_.front().ended; ++first_id_) live_.pop_front();
    traffic_.ended(id, how, clock_.now());
  }

  SimReport report() {
    SimReport out;
    out.scheduler = scheduler_.stats();
    out.clients = metrics_.report();
    out.seconds = to_seconds(clock_.now() - TimePoint{});
    out.busy_seconds = busy_seconds_;
    out.computed_tokens = computed_tokens_;
    scheduler_.check();
    require(live_.empty(), "a request never ended");
    require(out.scheduler.kv.held == 0, "pages are held by nobody");
    return out;
  }

  const SimSetup& setup_;
  Traffic& traffic_;
  KvPool pool_;
  Scheduler scheduler_;
  ManualClock clock_;
  SimMetrics metrics_;
  RequestId first_id_ = 1;  // of live_, whose requests have consecutive ids
  std::deque<Live> live_;
  std::priority_queue<Leaving, std::vector<Leaving>, std::greater<>> leaving_;
  StepPlan plan_;
  StepResult result_;
  std::vector<RequestId> finished_;
  std::uint64_t computed_tokens_ = 0;
  double busy_seconds_ = 0;
};

}  // namespace

SimReport simulate(const SimSetup& setup, Traffic& traffic, const PlanObserver& observe) {
  return Simulation(setup, traffic).run(observe);
}

}  // namespace mlxs
