// A million random operations on tiny pools against a model that remembers what each page really holds.
#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "kv/kv_pool.h"

namespace mlxs {
namespace {

using Tokens = std::vector<TokenId>;
using std::chrono::seconds;

constexpr int kSteps = 125'000;  // of each of the 8 seeds, of 6 with windows of 7 to 42 tokens, and of 6
                                 // where only some layers have them
constexpr std::int32_t kPages = 11;

class RandomPool : public testing::TestWithParam<std::uint32_t> {
 protected:
  struct Live {
    Tokens tokens;
    std::uint64_t salt = 0;
    std::vector<std::uint64_t> prints;  // of salt and tokens[0 … i]
    KvSequence sequence;
  };

  int below(int limit) { return static_cast<int>(random_() % static_cast<std::uint32_t>(limit)); }

  // Few distinct pages and lengths around page boundaries, so that prefixes meet, part and end everywhere.
  Live random_sequence() {
    Live live;
    live.salt = static_cast<std::uint64_t>(below(2));
    for (int page = below(5); page >= 0; --page) live.tokens.insert(live.tokens.end(), kPageTokens, below(3));
    live.tokens.resize(live.tokens.size() - static_cast<std::size_t>(below(3) == 0 ? below(kPageTokens) : 0));
    std::uint64_t print = 0xcbf29ce484222325 + live.salt;  // FNV-1a: not the pool's own hash
    for (const TokenId token : live.tokens) {
      print = (print ^ static_cast<std::uint64_t>(token + 1)) * 0x100000001b3;
      live.prints.push_back(print);
    }
    return live;
  }

  static std::size_t place(const Live& live, std::int32_t position) {
    const PageId page = live.sequence.pages()[static_cast<std::size_t>(position / kPageTokens)];
    return static_cast<std::size_t>(page * kPageTokens + position % kPageTokens);
  }
  // Whose KV stands at each position of a page: a write records it, a reader compares it.
  void write(const Live& live, std::int32_t from, std::int32_t to) {
    for (std::int32_t i = from; i < to; ++i) {
      const PageId page = live.sequence.pages()[static_cast<std::size_t>(i / kPageTokens)];
      ASSERT_EQ(pool_.holders(page), 1) << "written while shared";
      content_[place(live, i)] = live.prints[static_cast<std::size_t>(i)];
      if (layer_window_ == 0) continue;
      ASSERT_EQ(pool_.window_places().holders(page), 1);
      window_content_.at(window_place(live, i)) = live.prints[static_cast<std::size_t>(i)];
    }
  }
  std::size_t window_place(const Live& live, std::int32_t position) const {
    const PageId page = live.sequence.pages()[static_cast<std::size_t>(position / kPageTokens)];
    return static_cast<std::size_t>(pool_.window_place(page) * kPageTokens + position % kPageTokens);
  }
  // All that the next token sees.
  void read(const Live& live) const {
    const std::int32_t committed = live.sequence.committed_tokens();
    for (std::int32_t i = window_ > 0 ? std::max(0, committed + 1 - window_) : 0; i < committed; ++i) {
      ASSERT_EQ(content_[place(live, i)], live.prints[static_cast<std::size_t>(i)]) << "position " << i;
    }
    if (layer_window_ == 0) return;
    for (std::int32_t i = std::max(0, committed + 1 - layer_window_); i < committed; ++i) {
      ASSERT_GE(pool_.window_place(live.sequence.pages()[static_cast<std::size_t>(i / kPageTokens)]), 0);
      ASSERT_EQ(window_content_.at(window_place(live, i)), live.prints[static_cast<std::size_t>(i)])
          << "position " << i;
    }
  }
  // Every page has exactly the holders that have it in their tables.
  void count_holders() const {
    std::vector<std::int32_t> holders(kPages, 0);
    for (const Live& live : live_) {
      const auto passed = static_cast<std::size_t>(live.sequence.passed());
      for (const PageId page : live.sequence.pages().subspan(passed))
        ++holders[static_cast<std::size_t>(page)];
    }
    for (PageId page = 0; page < kPages; ++page) {
      ASSERT_EQ(pool_.holders(page), holders[static_cast<std::size_t>(page)]) << "page " << page;
    }
    if (layer_window_ == 0) return;
    std::fill(holders.begin(), holders.end(), 0);
    for (const Live& live : live_) {
      for (std::int32_t i = live.sequence.window_first(); i < live.sequence.window_end(); ++i)
        ++holders[static_cast<std::size_t>(live.sequence.pages()[static_cast<std::size_t>(i)])];
    }
    for (PageId page = 0; page < kPages; ++page) {
      ASSERT_EQ(pool_.window_places().holders(page), holders[static_cast<std::size_t>(page)])
          << "page " << page;
    }
  }

  void open() {
    Live live = random_sequence();
    const PrefixHit peeked = pool_.peek_prefix(live.tokens, live.salt);
    const std::int32_t available = pool_.available();
    live.sequence = pool_.open(live.tokens, live.salt);
    const std::int32_t found = live.sequence.committed_tokens();
    ASSERT_EQ(found, peeked.tokens);
    ASSERT_EQ(pool_.available(), available - peeked.cached_pages);
    if (below(2) == 0) pool_.release_passed(live.sequence);
    ASSERT_LT(found, static_cast<std::int32_t>(live.tokens.size()));
    const PrefixMiss miss = live.sequence.miss();
    const bool all = found + kPageTokens >= static_cast<std::int32_t>(live.tokens.size());
    ASSERT_EQ(miss.reason == MissReason::kNone, all);
    if (!all) {
      ASSERT_GE(miss.token, found);
      ASSERT_LT(miss.token, found + kPageTokens) << "an equal page would have been found";
      ASSERT_TRUE(layer_window_ > 0 || miss.reason != MissReason::kWindow);
    }
    hits_ += found > 0 ? 1 : 0;
    live_.push_back(std::move(live));
  }
  void grow(Live& live) {
    const std::int32_t committed = live.sequence.committed_tokens();
    const std::int32_t to = committed + below(static_cast<std::int32_t>(live.tokens.size()) - committed + 1);
    const std::size_t before = live.sequence.pages().size();
    const std::int32_t missing = std::max(0, KvPool::pages_for(to) - static_cast<std::int32_t>(before));
    const bool expected = missing <= pool_.available();
    ASSERT_EQ(pool_.reserve(live.sequence, to), expected);
    if (expected && !pool_.reserve_window(live.sequence, committed, to)) {
      ASSERT_EQ(pool_.stats().window_held, kPlaces);
      if (below(2) == 0) pool_.give_back_window(live.sequence);
      ++lacked_places_;
    } else if (expected) {
      write(live, committed, to);
      pool_.commit(live.sequence, live.tokens, to);
      pool_.release_passed(live.sequence);
    } else {
      ASSERT_EQ(live.sequence.pages().size(), before);
      ++full_;
    }
  }

  std::mt19937 random_{GetParam()};
  // Few enough that sequences lack them; the least of 6 windows needs one for what a row sees, the largest 4.
  static constexpr std::int32_t kPlaces = 6;
  const int kind_ = GetParam() <= 8 ? 0 : GetParam() <= 14 ? 1 : 2;
  const std::int32_t any_window_ = kind_ == 0 ? 0 : static_cast<std::int32_t>(7 * ((GetParam() - 9) % 6 + 1));
  const std::int32_t window_ = kind_ == 1 ? any_window_ : 0, layer_window_ = kind_ == 2 ? any_window_ : 0;
  KvPool pool_{{.num_pages = kPages,
                .window = window_,
                .layer_window = layer_window_,
                .num_window_pages = layer_window_ > 0 ? kPlaces : 0,
                .ttl = seconds(40),
                .max_entries = 4}};
  TimePoint now_{};
  std::vector<Live> live_;
  std::vector<std::uint64_t> content_ = std::vector<std::uint64_t>(std::size_t{kPages} * kPageTokens);
  std::vector<std::uint64_t> window_content_ = std::vector<std::uint64_t>(std::size_t{kPlaces} * kPageTokens);
  std::uint64_t hits_ = 0, full_ = 0, lacked_places_ = 0;
};

TEST_P(RandomPool, KeepsEveryPromise) {
  for (int step = 0; step < kSteps; ++step) {
    const int operation = below(100);
    const auto pick = static_cast<std::size_t>(below(static_cast<int>(live_.size()) + 1));
    if (operation < 30 && live_.size() < 5) {
      ASSERT_NO_FATAL_FAILURE(open());
    } else if (pick < live_.size()) {
      Live& live = live_[pick];
      const std::int32_t committed = live.sequence.committed_tokens();
      if (operation < 65) {
        ASSERT_NO_FATAL_FAILURE(grow(live));
      } else if (operation < 75) {
        const std::int32_t gained = pool_.extend_prefix(live.sequence, live.tokens);
        ASSERT_EQ(live.sequence.committed_tokens(), committed + gained);
      } else if (operation < 98) {
        pool_.close(std::move(live.sequence));
        live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(pick));
      }
    } else if (operation > 98) {
      pool_.drop_cache();
      ASSERT_EQ(pool_.stats().cached, 0);
    } else if (operation > 90) {
      now_ += seconds(below(30));
      pool_.advance(now_);
    }
    ASSERT_NO_THROW(pool_.check()) << "after operation " << step;
    ASSERT_NO_FATAL_FAILURE(count_holders());
    for (const Live& live : live_) ASSERT_NO_FATAL_FAILURE(read(live));
  }
  for (Live& live : live_) pool_.close(std::move(live.sequence));
  live_.clear();
  count_holders();
  pool_.check();
  const KvPoolStats stats = pool_.stats();
  EXPECT_EQ(stats.held, 0);
  EXPECT_EQ(stats.free + stats.cached, kPages);
  EXPECT_GT(hits_, 1000u) << "the test must meet what it tests";
  EXPECT_GT(full_, window_ > 0 ? 20u : 1000u) << "windows leave more room";
  EXPECT_GT(stats.evictions, 1000u);
  EXPECT_GT(stats.expirations, 500u);
  EXPECT_EQ(stats.passed > 1000, window_ > 0 && window_ < 60);
  for (std::size_t reason = 0; reason < kMissReasons; ++reason) {
    if (reason == static_cast<std::size_t>(MissReason::kWindow) && layer_window_ == 0) continue;
    EXPECT_GT(stats.misses[reason], 100u) << reason;
  }
  if (layer_window_ == 0) return;
  EXPECT_EQ(stats.window_held, 0);
  EXPECT_GT(stats.window_passed, 500u);
  EXPECT_GT(stats.window_evictions, 1000u);
  EXPECT_GT(lacked_places_, 100u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPool, testing::Range(1u, 21u));

}  // namespace
}  // namespace mlxs
