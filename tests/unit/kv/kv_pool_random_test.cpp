// Random operations on a tiny pool against a model that remembers what each page really holds.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

#include "kv/kv_pool.h"

namespace mlxs {
namespace {

using Tokens = std::vector<TokenId>;

class RandomPool : public testing::TestWithParam<std::uint32_t> {
 protected:
  struct Live {
    Tokens tokens;
    std::uint64_t salt;
    KvSequence sequence;
  };

  int below(int limit) { return static_cast<int>(random_() % static_cast<std::uint32_t>(limit)); }

  // Few distinct pages and lengths around page boundaries, so that prefixes meet, part and end everywhere.
  Tokens random_tokens() {
    Tokens tokens;
    for (int page = below(5); page >= 0; --page) tokens.insert(tokens.end(), kPageTokens, below(3));
    tokens.resize(tokens.size() - static_cast<std::size_t>(below(3) == 0 ? below(kPageTokens) : 0));
    return tokens;
  }

  // The tokens whose KV stands at each position of a page: a write records them, a reader compares them.
  void write(const Live& live, std::int32_t from, std::int32_t to) {
    for (std::int32_t i = from; i < to; ++i) {
      const PageId page = live.sequence.pages()[static_cast<std::size_t>(i / kPageTokens)];
      ASSERT_EQ(pool_.holders(page), 1) << "written while shared";
      const auto prefix = live.tokens.begin();
      content_[{page, i % kPageTokens}] = {live.salt, Tokens(prefix, prefix + i + 1)};
    }
  }
  void read(const Live& live) {
    for (std::int32_t i = 0; i < live.sequence.committed_tokens(); ++i) {
      const PageId page = live.sequence.pages()[static_cast<std::size_t>(i / kPageTokens)];
      const auto prefix = live.tokens.begin();
      const std::pair expected(live.salt, Tokens(prefix, prefix + i + 1));
      ASSERT_EQ((content_[{page, i % kPageTokens}]), expected) << "position " << i;
    }
  }

  std::mt19937 random_{GetParam()};
  KvPool pool_{{.num_pages = 11}};
  std::vector<Live> live_;
  std::map<std::pair<PageId, int>, std::pair<std::uint64_t, Tokens>> content_;
};

TEST_P(RandomPool, KeepsEveryPromise) {
  std::uint64_t hits = 0, full = 0;
  for (int step = 0; step < 10000; ++step) {
    const int operation = below(100);
    const auto pick = static_cast<std::size_t>(below(static_cast<int>(live_.size()) + 1));
    if (operation < 30 && live_.size() < 5) {
      Live live{.tokens = random_tokens(), .salt = static_cast<std::uint64_t>(below(2)), .sequence = {}};
      const PrefixHit peeked = pool_.peek_prefix(live.tokens, live.salt);
      const std::int32_t available = pool_.available();
      live.sequence = pool_.open(live.tokens, live.salt);
      ASSERT_EQ(live.sequence.committed_tokens(), peeked.tokens);
      ASSERT_EQ(pool_.available(), available - peeked.cached_pages);
      ASSERT_LT(peeked.tokens, static_cast<std::int32_t>(live.tokens.size()));
      hits += peeked.tokens > 0 ? 1 : 0;
      live_.push_back(std::move(live));
    } else if (pick < live_.size()) {
      Live& live = live_[pick];
      const std::int32_t committed = live.sequence.committed_tokens();
      const std::int32_t total = static_cast<std::int32_t>(live.tokens.size());
      if (operation < 65) {
        const std::int32_t to = committed + below(total - committed + 1);
        const std::size_t before = live.sequence.pages().size();
        const std::int32_t missing = std::max(0, KvPool::pages_for(to) - static_cast<std::int32_t>(before));
        const bool expected = missing <= pool_.available();
        ASSERT_EQ(pool_.reserve(live.sequence, to), expected);
        if (expected) {
          write(live, committed, to);
          pool_.commit(live.sequence, live.tokens, to);
        } else {
          ASSERT_EQ(live.sequence.pages().size(), before);
          ++full;
        }
      } else if (operation < 75) {
        const std::int32_t gained = pool_.extend_prefix(live.sequence, live.tokens);
        ASSERT_EQ(live.sequence.committed_tokens(), committed + gained);
      } else if (operation < 98) {
        pool_.close(std::move(live.sequence));
        live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(pick));
      }
    } else if (operation > 97) {
      pool_.drop_cache();
      ASSERT_EQ(pool_.stats().cached, 0);
    }
    ASSERT_NO_THROW(pool_.check()) << "after operation " << step;
    for (const Live& live : live_) ASSERT_NO_FATAL_FAILURE(read(live));
  }
  for (Live& live : live_) pool_.close(std::move(live.sequence));
  pool_.check();
  EXPECT_EQ(pool_.stats().held, 0);
  EXPECT_GT(hits, 100u) << "the test must meet what it tests";
  EXPECT_GT(full, 100u);
  EXPECT_GT(pool_.stats().evictions, 100u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPool, testing::Range(1u, 9u));

}  // namespace
}  // namespace mlxs
