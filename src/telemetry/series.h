// What metrics keep: atomics and histograms of one model and of one tenant, in lists that only grow, so that
// they are found without a lock. Private to telemetry/.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "mlxs/observer.h"
#include "telemetry/histogram.h"
#include "telemetry/sliding_rate.h"

namespace mlxs {

// vLLM's buckets, so that its dashboards and alerts work here. Seconds, but for the token counts.
inline constexpr double kFirstTokenBuckets[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                                0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                                20,    40,    80,   160,  640,  2560};
inline constexpr double kInterTokenBuckets[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                                0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
inline constexpr double kRequestBuckets[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                             30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
inline constexpr double kRequestTokenBuckets[] = {1,     2,      5,      10,     20,     50,    100,
                                                  200,   500,    1000,   2000,   5000,   10000, 20000,
                                                  50000, 100000, 200000, 500000, 1000000};
inline constexpr double kStepTokenBuckets[] = {1,   8,    16,   32,   64,   128,  256,
                                               512, 1024, 2048, 4096, 8192, 16384};
inline constexpr double kChoiceBuckets[] = {1, 2, 5, 10, 20};
inline constexpr double kPreemptionBuckets[] = {1, 2, 3, 4, 5, 10, 20};
// Ours: steps and tokenizing are short.
inline constexpr double kShortBuckets[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                           0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};

// How a request can end, in vLLM's words.
inline constexpr std::array<std::pair<std::string_view, const char*>, 4> kFinishReasons{
    {{"stop", "stop"}, {"length", "length"}, {"cancelled", "abort"}, {"error", "error"}}};

inline constexpr std::array<const char*, 6> kStepParts{"plan", "mask", "launch", "sample", "wait", "publish"};

using Counter = std::atomic<std::uint64_t>;

inline void add(Counter& counter, std::uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }
inline void add_seconds(std::atomic<double>& total, double by) {
  total.fetch_add(by, std::memory_order_relaxed);
}
inline double value(const Counter& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}
inline double value(const std::atomic<double>& total) { return total.load(std::memory_order_relaxed); }

struct ModelSeries {
  explicit ModelSeries(std::string_view given) : name(given) {}

  const std::string name;
  ModelSeries* next = nullptr;  // written before the series is published, never after

  AtomicHistogram first_token{kFirstTokenBuckets};
  AtomicHistogram inter_token{kInterTokenBuckets};
  AtomicHistogram mean_inter_token{kInterTokenBuckets};
  AtomicHistogram request{kRequestBuckets}, queue{kRequestBuckets}, prefill{kRequestBuckets},
      decode{kRequestBuckets}, inference{kRequestBuckets};
  AtomicHistogram prompt_tokens{kRequestTokenBuckets}, generation_tokens{kRequestTokenBuckets},
      max_tokens{kRequestTokenBuckets}, computed_tokens{kRequestTokenBuckets},
      longest_choice{kRequestTokenBuckets};
  AtomicHistogram choices{kChoiceBuckets}, preemptions{kPreemptionBuckets};
  AtomicHistogram step_tokens{kStepTokenBuckets};
  AtomicHistogram step{kShortBuckets}, tokenize{kShortBuckets};
  std::array<std::atomic<double>, kStepParts.size()> step_seconds{};
  std::array<std::atomic<double>, kRequestParts> part_seconds{};
  std::atomic<double> mask_seconds{0};
  std::array<Counter, kFinishReasons.size()> finished{};
  Counter prompt_total{0}, prompt_cached_total{0}, prompt_computed_total{0}, generation_total{0},
      failed_steps{0};
  SlidingRate generated_rate, ended_rate;
};

struct TenantSeries {
  explicit TenantSeries(std::string_view given) : name(given) {}

  const std::string name;
  TenantSeries* next = nullptr;

  Counter requests{0}, prompt_tokens{0}, generated_tokens{0}, cached_tokens{0}, errors{0};
  std::atomic<double> queue_seconds{0}, e2e_seconds{0};
  AtomicHistogram first_token{kFirstTokenBuckets};
};

// Found without a lock, added under one. Names beyond `most` share one series.
template <class Series>
class SeriesList {
 public:
  explicit SeriesList(std::size_t most) : most_(most) {}
  ~SeriesList() {
    for (Series* series = head_.load(); series != nullptr;) delete std::exchange(series, series->next);
  }
  SeriesList(const SeriesList&) = delete;
  SeriesList& operator=(const SeriesList&) = delete;

  Series& of(std::string_view name) {
    if (Series* series = find(name)) return *series;
    const std::lock_guard lock(adding_);
    if (Series* series = find(name)) return *series;
    if (count_ >= most_) {
      if (Series* series = find(kOther)) return *series;
      name = kOther;
    }
    auto* series = new Series(name);
    series->next = head_.load(std::memory_order_relaxed);
    head_.store(series, std::memory_order_release);
    ++count_;
    return *series;
  }

  template <class Visit>
  void each(Visit&& visit) const {
    for (const Series* s = head_.load(std::memory_order_acquire); s != nullptr; s = s->next) visit(*s);
  }

 private:
  static constexpr std::string_view kOther = "(others)";

  Series* find(std::string_view name) const {
    Series* series = head_.load(std::memory_order_acquire);
    while (series != nullptr && series->name != name) series = series->next;
    return series;
  }

  const std::size_t most_;
  std::atomic<Series*> head_{nullptr};
  std::mutex adding_;
  std::size_t count_ = 0;
};

}  // namespace mlxs
