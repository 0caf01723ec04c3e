// Plays the engine and the model for a Scheduler under test. The model is exact where it matters: it keeps in
// every page slot what KV was written there, refuses to read anything but the right prefix, and its next
// token depends on the whole prefix. So a wrong page, a stale one, a gap or a token computed twice shows up
// as a failure of the step that did it. It computes a step when its result is asked for, as late as a device
// may that has the next one already, and rows of requests that have ended meanwhile write nonsense.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kv/chain_hash.h"
#include "sched/scheduler.h"

namespace mlxs {

class Driver {
 public:
  struct Request {
    std::vector<TokenId> tokens;        // prompt, then generated
    std::vector<std::uint64_t> prefix;  // hash of tokens[0, i] and the salt: the KV of position i
    std::uint64_t salt = 0;
    std::size_t prompt_tokens = 0, wanted = 0;  // wanted: generated tokens until the stop condition
    std::size_t most = 0;                       // generated tokens that it may have
    std::int32_t computed = 0;  // positions that this request's pages hold; 0 after a preemption
    bool decoding = false, paused = false, reset = true;  // reset: admitted (again) by its next span
    bool was_reset = false;                               // preempted once
    std::uint64_t first_step = 0, first_token_step = 0;

    std::size_t generated() const { return tokens.size() - prompt_tokens; }
    void push(TokenId token) {
      const std::uint64_t before = prefix.empty() ? chain_root(salt) : prefix.back();
      tokens.push_back(token);
      prefix.push_back(mix64(before ^ static_cast<std::uint64_t>(token + 1)));
    }
    TokenId next_token() const { return static_cast<TokenId>(prefix.back() % 3); }
  };

  Driver(SchedulerConfig config, KvPoolConfig kv)
      : config_(config),
        kv_(kv),
        pool_(kv),
        scheduler_(config, pool_),
        slots_(static_cast<std::size_t>(kv.num_pages) * kPageTokens),
        window_slots_(static_cast<std::size_t>(kv.num_window_pages) * kPageTokens),
        host_(static_cast<std::size_t>(config.swap_pages)),
        window_host_(host_.size()) {}

  // wanted 0: as many as it may. The id counts from 1.
  std::optional<Refusal> add(std::vector<TokenId> prompt, std::int32_t max_new,
                             Priority priority = Priority::kNormal, std::size_t wanted = 0,
                             std::uint64_t salt = 0, std::int32_t pin_tokens = 0) {
    Request request;
    request.salt = salt;
    request.prompt_tokens = prompt.size();
    request.most = static_cast<std::size_t>(max_new);
    request.wanted = wanted > 0 ? wanted : request.most;
    for (const TokenId token : prompt) request.push(token);
    const RequestId id = ++last_id_;
    std::vector<PinRequest> pins;
    if (pin_tokens > 0) pins.push_back({.tokens = pin_tokens});
    const auto refusal = scheduler_.add({.id = id,
                                         .prompt = std::move(prompt),
                                         .max_new_tokens = max_new,
                                         .priority = priority,
                                         .arrival = now_,
                                         .cache_salt = salt,
                                         .pins = std::move(pins)});
    if (!refusal) live_.emplace(id, std::move(request));
    return refusal;
  }
  void cancel(RequestId id) {
    scheduler_.cancel(id);
    live_.erase(id);
  }
  void pause(RequestId id) {
    scheduler_.pause(id);
    if (const auto found = live_.find(id); found != live_.end()) found->second.paused = true;
  }
  void resume(RequestId id) {
    scheduler_.resume(id);
    if (const auto found = live_.find(id); found != live_.end()) found->second.paused = false;
  }

  enum class Ahead { kNo, kYes, kDropped };
  // One step, every promise of the plan checked. False if nothing could run. ahead: the step behind it is
  // planned first, and is under way afterwards if that was possible; or it is dropped.
  bool step(Ahead ahead = Ahead::kNo) {
    if (under_way_.empty() && !begin()) return false;
    if (ahead != Ahead::kNo) begin_behind(ahead == Ahead::kDropped);
    end();
    return true;
  }
  void drain(Ahead ahead = Ahead::kNo, int max_steps = 100000) {
    for (int i = 0; i < max_steps && step(ahead); ++i) {
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(scheduler_.idle()) << live_.size() << " requests never finished";
  }

  // 500 steps in which requests 1 … `requests` pause and go on at random; then all of them end.
  void drain_pausing(std::mt19937& random, RequestId requests) {
    for (int i = 0; i < 500; ++i) {
      pause(1 + random() % requests);
      resume(1 + random() % requests);
      step();
    }
    for (RequestId id = 1; id <= requests; ++id) resume(id);
    drain();
  }

  // The request's output if it had run alone.
  static std::vector<TokenId> alone(const Request& request) {
    Request replay;
    replay.salt = request.salt;
    replay.prompt_tokens = request.prompt_tokens;
    for (std::size_t i = 0; i < request.prompt_tokens; ++i) replay.push(request.tokens[i]);
    while (replay.generated() < request.wanted) replay.push(replay.next_token());
    return replay.tokens;
  }

  Scheduler& scheduler() { return scheduler_; }
  KvPool& pool() { return pool_; }
  const StepPlan& plan() const { return plan_; }  // of the last step(), or the empty one
  std::map<RequestId, Request>& live() { return live_; }
  const std::map<RequestId, Request>& done() const { return done_; }
  RequestId last_id() const { return last_id_; }
  std::uint64_t preemptions() const { return preemptions_; }
  std::uint64_t computed_tokens() const { return computed_tokens_; }
  std::uint64_t copied_pages() const { return copied_pages_; }
  TimePoint& now() { return now_; }

 private:
  bool begin() {
    scheduler_.plan(now_, plan_);
    EXPECT_EQ(plan_.preempted.size(), plan_.preempted_for.size());
    copy_pages();
    refuse(plan_);
    for (const RequestId id : plan_.preempted_for) EXPECT_TRUE(live_.contains(id));
    for (const RequestId id : plan_.admitted) EXPECT_TRUE(live_.contains(id));
    for (const RequestId id : plan_.preempted) {
      Request& request = live_.at(id);
      const auto [last, first_time] = generated_at_preemption_.try_emplace(id, request.generated());
      EXPECT_TRUE(first_time || request.paused || request.generated() > last->second) << id << " thrashes";
      last->second = request.generated();
      request.decoding = false;
      request.reset = request.was_reset = true;
      ++preemptions_;
    }
    if (plan_.empty()) {
      EXPECT_EQ(plan_.step, 0u);
      return false;
    }
    check_plan(plan_, nullptr);
    under_way_.push_back(plan_);
    return true;
  }

  void begin_behind(bool drop) {
    if (!scheduler_.plan_ahead(now_, behind_)) return;
    refuse(behind_);
    EXPECT_TRUE(behind_.swap_out.empty() && behind_.swap_in.empty() && behind_.branches.empty());
    EXPECT_TRUE(behind_.preempted.empty() && behind_.admitted.empty() && !behind_.held_until);
    check_plan(behind_, &under_way_.back());
    if (!drop) return under_way_.push_back(behind_);
    scheduler_.drop_ahead();
    --steps_;
  }

  void end() {
    plan_ = std::move(under_way_.front());
    under_way_.pop_front();
    StepResult result{.step = plan_.step, .spans = {}, .seconds = step_seconds()};
    result.copy_seconds = 1e-4 * static_cast<double>(plan_.swap_out.size() + plan_.swap_in.size());
    for (const PlannedSpan& span : plan_.spans) result.spans.push_back(run(span));
    for (const SpanResult& span : result.spans) {
      if (!span.finished || !live_.contains(span.request)) continue;
      auto node = live_.extract(span.request);
      done_.emplace(span.request, std::move(node.mapped()));
    }
    scheduler_.commit(result);
    scheduler_.check();
    now_ += std::chrono::milliseconds(10);
  }

  void refuse(const StepPlan& plan) {
    for (const Refusal& refusal : plan.refused) {
      EXPECT_EQ(live_.at(refusal.request).first_step, 0u) << refusal.request << " had begun";
      live_.erase(refusal.request);
    }
  }

  // Slots first take all that leaves pages, then give back.
  void copy_pages() {
    const auto page_at = [&](PageId page) { return slots_.begin() + page * kPageTokens; };
    const auto window_at = [&](PageId place) { return window_slots_.begin() + place * kPageTokens; };
    for (const PageCopy& copy : plan_.swap_out) {
      const auto slot = static_cast<std::size_t>(copy.slot);
      std::copy_n(page_at(copy.page), kPageTokens, host_.at(slot).begin());
      if (copy.window >= 0) std::copy_n(window_at(copy.window), kPageTokens, window_host_.at(slot).begin());
    }
    for (const PageCopy& copy : plan_.swap_in) {
      const auto slot = static_cast<std::size_t>(copy.slot);
      std::ranges::copy(host_.at(slot), page_at(copy.page));
      if (copy.window >= 0) std::ranges::copy(window_host_.at(slot), window_at(copy.window));
    }
    for (const PageBranch& branch : plan_.branches) {
      EXPECT_EQ(pool_.holders(branch.to), 1);
      std::copy_n(page_at(branch.from), kPageTokens, page_at(branch.to));
      EXPECT_EQ(branch.window_to >= 0 && branch.window_from >= 0, kv_.layer_window > 0);
      if (kv_.layer_window > 0)
        std::copy_n(window_at(branch.window_from), kPageTokens, window_at(branch.window_to));
    }
    copied_pages_ += plan_.swap_out.size() + plan_.swap_in.size();
  }

  double step_seconds() const {
    if (config_.swap_pages == 0) return 0.01;
    return 0.005 + 0.001 * plan_.total_tokens;  // a token costs so much that copies pay
  }

  // before: the step under way, if this one is planned behind it.
  void check_plan(const StepPlan& plan, const StepPlan* before) {
    EXPECT_EQ(plan.step, ++steps_);
    std::map<RequestId, std::int32_t> sampling;  // spans of the step before
    if (before != nullptr) {
      for (std::size_t i = 0; i < before->spans.size(); ++i) {
        if (before->spans[i].samples)
          sampling.emplace(before->spans[i].request, static_cast<std::int32_t>(i));
      }
    }
    const auto decodes = [&](RequestId id) { return live_.at(id).decoding || sampling.contains(id); };
    const auto prefills = static_cast<std::int32_t>(plan.spans.size()) - plan.decode_rows;
    if (config_.prefill_order != PrefillOrder::kFcfsWhole || prefills > 1) {
      EXPECT_LE(plan.total_tokens, config_.token_budget);
    }
    EXPECT_LE(plan.spans.size(), static_cast<std::size_t>(config_.max_running));
    std::int32_t total = 0;
    std::set<RequestId> rows;
    std::set<std::pair<PageId, int>> written;
    for (std::size_t i = 0; i < plan.spans.size(); ++i) {
      const PlannedSpan& span = plan.spans[i];
      const Request& request = live_.at(span.request);
      total += span.count;
      EXPECT_TRUE(rows.insert(span.request).second) << "two spans of one request";
      EXPECT_FALSE(request.paused);
      EXPECT_GE(span.count, 1);
      EXPECT_EQ(i < static_cast<std::size_t>(plan.decode_rows), decodes(span.request))
          << "decode rows come first";
      EXPECT_TRUE(!decodes(span.request) || span.count == 1);
      EXPECT_EQ(span.fed, before != nullptr ? sampling.at(span.request) : -1);
      EXPECT_EQ(span.pages.size(), static_cast<std::size_t>(KvPool::pages_for(span.start + span.count)));
      EXPECT_EQ(span.window_pages.size(), kv_.layer_window > 0 ? span.pages.size() : 0);
      for (std::int32_t p = span.start; p < span.start + span.count; ++p) {
        const PageId page = span.pages.at(static_cast<std::size_t>(p / kPageTokens));
        EXPECT_EQ(pool_.holders(page), 1) << "a page to be written has one holder";
        EXPECT_TRUE(written.insert({page, p % kPageTokens}).second) << "two writers of one position";
      }
    }
    EXPECT_EQ(total, plan.total_tokens);
    for (const auto& [id, request] : live_) {
      const bool ends = before != nullptr && request.generated() + 1 == request.most;
      EXPECT_TRUE(!decodes(id) || request.paused || ends || rows.contains(id))
          << "decode row " << id << " delayed";
    }
  }

  SpanResult run(const PlannedSpan& span) {
    const std::int32_t end = span.start + span.count;
    if (!live_.contains(span.request)) {  // ended since it was planned
      for (std::int32_t p = span.start; p < end; ++p) slot(span, p) = 0xdead;
      return {.request = span.request, .token = 3, .finished = true};
    }
    Request& request = live_.at(span.request);
    const auto num_tokens = static_cast<std::int32_t>(request.tokens.size());
    EXPECT_LE(end, num_tokens);
    EXPECT_EQ(span.samples, end == num_tokens);
    if (request.reset) request.computed = 0;
    // Skipped positions are prefix hits; without a cache, or while decoding, there is nothing to skip.
    EXPECT_GE(span.start, request.computed);
    const bool swapped = config_.swap_pages > 0 && request.was_reset;
    const bool may_skip = (kv_.prefix_cache || swapped) && !request.decoding;
    EXPECT_TRUE(may_skip || span.start == request.computed);
    request.reset = false;
    request.computed = end;
    computed_tokens_ += static_cast<std::uint64_t>(span.count);
    for (std::int32_t p = span.start; p < end; ++p)
      slot(span, p) = request.prefix[static_cast<std::size_t>(p)];
    const std::int32_t first = kv_.window > 0 ? std::max(0, span.start + 1 - kv_.window) : 0;
    for (std::int32_t p = first; p < end; ++p) {
      EXPECT_EQ(slot(span, p), request.prefix[static_cast<std::size_t>(p)])
          << "KV of another prefix at " << p;
    }
    if (kv_.layer_window > 0) {
      for (std::int32_t p = span.start; p < end; ++p)
        window_slot(span, p) = request.prefix[static_cast<std::size_t>(p)];
      for (std::int32_t p = std::max(0, span.start + 1 - kv_.layer_window); p < end; ++p) {
        EXPECT_EQ(window_slot(span, p), request.prefix[static_cast<std::size_t>(p)])
            << "KV of another prefix in the layers with a window at " << p;
      }
    }
    if (request.first_step == 0) request.first_step = plan_.step;
    SpanResult result{.request = span.request};
    if (!span.samples) return result;
    if (request.first_token_step == 0) request.first_token_step = plan_.step;
    result.token = request.next_token();
    request.push(result.token);
    request.decoding = true;
    EXPECT_LE(request.generated(), request.wanted);
    result.finished = request.generated() == request.wanted;
    return result;
  }
  std::uint64_t& slot(const PlannedSpan& span, std::int32_t position) {
    const PageId page = span.pages[static_cast<std::size_t>(position / kPageTokens)];
    return slots_.at(static_cast<std::size_t>(page * kPageTokens + position % kPageTokens));
  }
  std::uint64_t& window_slot(const PlannedSpan& span, std::int32_t position) {
    const PageId place = span.window_pages.at(static_cast<std::size_t>(position / kPageTokens));
    return window_slots_.at(static_cast<std::size_t>(place * kPageTokens + position % kPageTokens));
  }

  SchedulerConfig config_;
  KvPoolConfig kv_;
  KvPool pool_;
  Scheduler scheduler_;
  std::vector<std::uint64_t> slots_;         // [num_pages * kPageTokens]: what KV stands there
  std::vector<std::uint64_t> window_slots_;  // the same of the layers with a window, by place
  std::vector<std::array<std::uint64_t, kPageTokens>> host_, window_host_;  // the swap space
  std::map<RequestId, Request> live_, done_;
  std::map<RequestId, std::size_t> generated_at_preemption_;
  StepPlan plan_, behind_;
  std::deque<StepPlan> under_way_;
  TimePoint now_{};
  RequestId last_id_ = 0;
  std::uint64_t steps_ = 0, preemptions_ = 0, computed_tokens_ = 0, copied_pages_ = 0;
};

// `count` tokens that no other `key` starts with.
inline std::vector<TokenId> prompt_of(std::size_t count, TokenId key = 0) {
  std::vector<TokenId> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = 100 + key * 1000 + static_cast<TokenId>(i % 97);
  return tokens;
}

}  // namespace mlxs
