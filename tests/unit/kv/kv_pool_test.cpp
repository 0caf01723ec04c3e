// KvPool by its contract: what is shared, what is never shared, what is evicted, and that the numbers add up.
#include "kv/kv_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using Tokens = std::vector<TokenId>;

Tokens count_from(TokenId first, int count) {
  Tokens tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A sequence with all of `tokens` computed.
KvSequence compute(KvPool& pool, const Tokens& tokens, std::uint64_t salt = 0) {
  KvSequence sequence = pool.open(tokens, salt);
  EXPECT_TRUE(pool.reserve(sequence, static_cast<std::int32_t>(tokens.size())));
  pool.commit(sequence, tokens, static_cast<std::int32_t>(tokens.size()));
  pool.check();
  return sequence;
}

void compute_and_close(KvPool& pool, const Tokens& tokens, std::uint64_t salt = 0) {
  pool.close(compute(pool, tokens, salt));
  pool.check();
}

std::int32_t hit(const KvPool& pool, const Tokens& tokens, std::uint64_t salt = 0) {
  return pool.peek_prefix(tokens, salt).tokens;
}

TEST(KvPool, RefusesToBeEmpty) { EXPECT_THROW(KvPool({.num_pages = 0}), Error); }

TEST(KvPool, PagesForRoundsUp) {
  EXPECT_EQ(KvPool::pages_for(0), 0);
  EXPECT_EQ(KvPool::pages_for(1), 1);
  EXPECT_EQ(KvPool::pages_for(16), 1);
  EXPECT_EQ(KvPool::pages_for(17), 2);
  EXPECT_EQ(KvPool::pages_for(INT32_MAX), 1 << 27);
}

TEST(KvPool, ABegunPageStaysForCopies) {
  KvPool pool({.num_pages = 8});
  KvSequence first = compute(pool, count_from(0, 26));
  pool.keep_tail(first, count_from(0, 26));
  pool.close(std::move(first));
  pool.check();
  EXPECT_EQ(pool.stats().cached, 2);
  EXPECT_EQ(pool.stats().entries, 1);
  EXPECT_EQ(hit(pool, count_from(0, 40)), 16) << "a begun page is not shared, only copied";

  KvSequence again = pool.open(count_from(0, 26));
  const auto same = pool.closest_page(again, count_from(0, 26));
  ASSERT_TRUE(same);
  EXPECT_EQ(same->tokens, 9) << "the last token is computed";
  EXPECT_EQ(pool.closest_page(again, count_from(0, 22) + count_from(90, 4))->tokens, 6);
  EXPECT_FALSE(pool.closest_page(again, count_from(0, 19) + count_from(90, 4)));
  EXPECT_FALSE(pool.closest_page(again, count_from(0, 40))) << "more than a page is left";
  pool.close(std::move(again));

  KvSequence twice = compute(pool, count_from(0, 22));
  pool.keep_tail(twice, count_from(0, 22));
  pool.close(std::move(twice));
  EXPECT_EQ(pool.stats().cached, 2) << "the tree holds as much already";
  KvSequence salted = pool.open(count_from(0, 26), 7);
  EXPECT_FALSE(pool.closest_page(salted, count_from(0, 10)));
  pool.close(std::move(salted));
  KvSequence all = pool.open(count_from(500, 8));
  ASSERT_TRUE(pool.reserve(all, 8 * kPageTokens)) << "a begun page makes room like any other";
  pool.close(std::move(all));
  pool.check();
}

TEST(KvPool, ABegunPageGoesWhereAFullOneContinuesIt) {
  KvPool pool({.num_pages = 8});
  KvSequence first = compute(pool, count_from(0, 26));
  pool.keep_tail(first, count_from(0, 26));
  pool.close(std::move(first));
  KvSequence next = compute(pool, count_from(0, 40));
  EXPECT_EQ(next.miss().reason, MissReason::kNew) << "it goes on, nothing parts";
  pool.close(std::move(next));
  EXPECT_EQ(pool.stats().cached, 2);
  EXPECT_EQ(pool.stats().entries, 1);
  pool.check();
}

TEST(KvPool, ABegunPageIsKeptOnceHoweverManyBeganBeside) {
  KvPool pool({.num_pages = 256});
  const auto keep = [&](TokenId from) {
    KvSequence sequence = compute(pool, count_from(from, 8));
    pool.keep_tail(sequence, count_from(from, 8));
    pool.close(std::move(sequence));
  };
  for (TokenId from = 0; from < 100; ++from) keep(from * 10);
  keep(0);
  pool.check();
  EXPECT_EQ(pool.stats().cached, 100);
}

TEST(KvPool, ReusesFullPagesAndLeavesOneTokenToCompute) {
  KvPool pool({.num_pages = 16});
  compute_and_close(pool, count_from(0, 40));  // two full pages and eight tokens
  EXPECT_EQ(pool.stats().cached, 2);
  EXPECT_EQ(hit(pool, count_from(0, 40)), 32);
  EXPECT_EQ(hit(pool, count_from(0, 33)), 32);
  EXPECT_EQ(hit(pool, count_from(0, 32)), 16);  // all 32 would leave nothing to compute
  EXPECT_EQ(hit(pool, count_from(0, 16)), 0);
  EXPECT_EQ(hit(pool, count_from(0, 20) + count_from(500, 20)), 16);  // diverges inside the second page
  EXPECT_EQ(hit(pool, count_from(1, 40)), 0);
  EXPECT_EQ(hit(pool, {}), 0);

  KvSequence sequence = pool.open(count_from(0, 40));
  EXPECT_EQ(sequence.committed_tokens(), 32);
  EXPECT_EQ(sequence.pages().size(), 2u);
  EXPECT_EQ(pool.stats().held, 2);
  pool.check();
  pool.close(std::move(sequence));
  pool.check();
}

TEST(KvPool, CountsTokensAskedForAndFound) {
  KvPool pool({.num_pages = 16});
  compute_and_close(pool, count_from(0, 40));
  compute_and_close(pool, count_from(0, 40));
  EXPECT_EQ(pool.stats().prefix_queries, 80u);
  EXPECT_EQ(pool.stats().prefix_hits, 32u);
  hit(pool, count_from(0, 40));
  EXPECT_EQ(pool.stats().prefix_queries, 80u) << "peeking is no query";
}

TEST(KvPool, SaltsNeverShare) {
  KvPool pool({.num_pages = 16});
  compute_and_close(pool, count_from(0, 40), 1);
  EXPECT_EQ(hit(pool, count_from(0, 40), 1), 32);
  EXPECT_EQ(hit(pool, count_from(0, 40), 2), 0);
  EXPECT_EQ(hit(pool, count_from(0, 40)), 0);
}

TEST(KvPool, SharesHeldPagesAndCountsHolders) {
  KvPool pool({.num_pages = 16});
  KvSequence first = compute(pool, count_from(0, 40));
  KvSequence second = pool.open(count_from(0, 40));
  EXPECT_EQ(second.pages()[0], first.pages()[0]);
  EXPECT_EQ(pool.holders(first.pages()[0]), 2);
  ASSERT_TRUE(pool.reserve(second, 40));
  EXPECT_NE(second.pages()[2], first.pages()[2]) << "a page yet to be written is never shared";
  pool.close(std::move(first));
  pool.check();
  EXPECT_EQ(pool.stats().held, 3);
  pool.close(std::move(second));
  pool.check();
  EXPECT_EQ(pool.stats().held, 0);
  EXPECT_EQ(pool.stats().cached, 2);
}

TEST(KvPool, ClosedSequencesAreEmptyAndMovesLeaveNothingBehind) {
  KvPool pool({.num_pages = 16});
  KvSequence first = compute(pool, count_from(0, 40));
  KvSequence second = std::move(first);
  EXPECT_TRUE(first.pages().empty());
  EXPECT_EQ(first.committed_tokens(), 0);
  pool.close(std::move(first));
  EXPECT_EQ(pool.stats().held, 3);
  pool.close(std::move(second));
  EXPECT_TRUE(second.pages().empty());
  EXPECT_EQ(pool.stats().held, 0);
  pool.close(std::move(second));
  pool.check();
}

// Two sequences that compute the same page at the same time end up sharing one; the other becomes free.
TEST(KvPool, GivesUpDuplicates) {
  KvPool pool({.num_pages = 16});
  const Tokens tokens = count_from(0, 40);
  KvSequence first = pool.open(tokens), second = pool.open(tokens);
  ASSERT_TRUE(pool.reserve(first, 40) && pool.reserve(second, 40));
  EXPECT_EQ(pool.stats().held, 6);
  pool.commit(first, tokens, 40);
  pool.commit(second, tokens, 20);
  pool.check();
  EXPECT_EQ(second.pages()[0], first.pages()[0]);
  EXPECT_NE(second.pages()[1], first.pages()[1]);
  pool.commit(second, tokens, 40);
  pool.check();
  EXPECT_EQ(second.pages()[1], first.pages()[1]);
  EXPECT_NE(second.pages()[2], first.pages()[2]);
  EXPECT_EQ(pool.stats().held, 4);
  pool.close(std::move(first));
  pool.close(std::move(second));
  pool.check();
  EXPECT_EQ(pool.stats().cached, 2);
}

// The duplicate's twin may have left its sequence already.
TEST(KvPool, GivesUpDuplicatesOfCachedPages) {
  KvPool pool({.num_pages = 16});
  const Tokens tokens = count_from(0, 40);
  KvSequence late = pool.open(tokens);
  ASSERT_TRUE(pool.reserve(late, 40));
  compute_and_close(pool, tokens);
  EXPECT_EQ(pool.stats().cached, 2);
  pool.commit(late, tokens, 40);
  pool.check();
  EXPECT_EQ(pool.stats().cached, 0);
  EXPECT_EQ(pool.stats().held, 3);
  pool.close(std::move(late));
}

TEST(KvPool, ExtendsAWaitingSequenceByWhatOthersComputed) {
  KvPool pool({.num_pages = 16});
  const Tokens tokens = count_from(0, 60);
  KvSequence waiting = pool.open(tokens);
  ASSERT_TRUE(pool.reserve(waiting, 60));
  KvSequence other = compute(pool, count_from(0, 35));
  EXPECT_EQ(pool.extend_prefix(waiting, tokens), 32);
  pool.check();
  EXPECT_EQ(waiting.committed_tokens(), 32);
  EXPECT_EQ(waiting.pages().size(), 4u);
  EXPECT_EQ(waiting.pages()[1], other.pages()[1]);
  EXPECT_EQ(pool.stats().held, 5) << "its own two pages went back";
  EXPECT_EQ(pool.extend_prefix(waiting, tokens), 0);

  pool.commit(waiting, tokens, 40);
  pool.close(std::move(other));
  compute_and_close(pool, tokens);
  EXPECT_EQ(pool.extend_prefix(waiting, tokens), 0) << "in the middle of a page its own tokens are in it";
  pool.close(std::move(waiting));
  pool.check();
}

TEST(KvPool, NextPageHashTellsWhoComputesTheSamePage) {
  KvPool pool({.num_pages = 16});
  const Tokens tokens = count_from(0, 40);
  KvSequence a = pool.open(tokens), b = pool.open(tokens), salted = pool.open(tokens, 9);
  ASSERT_TRUE(pool.reserve(a, 40));
  EXPECT_EQ(pool.next_page_hash(a, tokens), pool.next_page_hash(b, count_from(0, 17)));
  EXPECT_NE(pool.next_page_hash(a, tokens), pool.next_page_hash(salted, tokens));
  EXPECT_EQ(pool.next_page_hash(a, count_from(0, 16)), std::nullopt) << "nobody may take over its last token";
  pool.commit(a, tokens, 16);
  EXPECT_NE(pool.next_page_hash(a, tokens), pool.next_page_hash(b, tokens));
  pool.commit(a, tokens, 17);
  EXPECT_EQ(pool.next_page_hash(a, tokens), std::nullopt);
  for (KvSequence* sequence : {&a, &b, &salted}) pool.close(std::move(*sequence));
}

TEST(KvPool, ReservesAllOrNothing) {
  KvPool pool({.num_pages = 4});
  KvSequence a = pool.open(count_from(0, 10)), b = pool.open(count_from(50, 10));
  EXPECT_TRUE(pool.reserve(a, 33));
  EXPECT_EQ(a.pages().size(), 3u);
  EXPECT_FALSE(pool.reserve(b, 17));
  EXPECT_TRUE(b.pages().empty());
  EXPECT_EQ(pool.available(), 1);
  EXPECT_TRUE(pool.reserve(b, 16));
  EXPECT_TRUE(pool.reserve(a, 48)) << "what it already holds needs no page";
  EXPECT_FALSE(pool.reserve(a, 49));
  pool.check();
  pool.close(std::move(a));
  pool.close(std::move(b));
  EXPECT_EQ(pool.available(), 4);
}

TEST(KvPool, EvictsTheLeastRecentlyUsedLeafFirst) {
  KvPool pool({.num_pages = 6});
  const Tokens a = count_from(0, 49), b = count_from(1000, 49);
  compute_and_close(pool, a);
  compute_and_close(pool, b);  // 3 + 3 pages cached, after it took one back of the free ones
  ASSERT_EQ(pool.stats().cached, 5) << "the partial last page of b took a's last";
  EXPECT_EQ(hit(pool, a), 32);
  EXPECT_EQ(hit(pool, b), 48);

  KvSequence touch = pool.open(a);  // now a is the more recent
  pool.close(std::move(touch));
  KvSequence c = pool.open(count_from(2000, 60));
  ASSERT_TRUE(pool.reserve(c, 60));  // one free, three of b
  EXPECT_EQ(pool.stats().evictions, 4u);
  EXPECT_EQ(hit(pool, a), 32);
  EXPECT_EQ(hit(pool, b), 0);
  pool.check();
  pool.close(std::move(c));
}

TEST(KvPool, EvictsFromTheEndOfAPrefix) {
  KvPool pool({.num_pages = 5});
  const Tokens a = count_from(0, 65);
  compute_and_close(pool, a);
  for (std::int32_t taken = 1; taken <= 5; ++taken) {
    KvSequence other = pool.open(count_from(5000, 1));
    ASSERT_TRUE(pool.reserve(other, taken * kPageTokens));
    EXPECT_EQ(hit(pool, a), std::min(4, 5 - taken) * kPageTokens);
    pool.check();
    pool.close(std::move(other));
  }
}

// A branch: the shared trunk outlives both branches, whichever is used last.
TEST(KvPool, KeepsTrunksLongerThanBranches) {
  KvPool pool({.num_pages = 8});
  const Tokens trunk = count_from(0, 32);
  const Tokens left = trunk + count_from(100, 17), right = trunk + count_from(200, 17);
  compute_and_close(pool, left);
  compute_and_close(pool, right);
  EXPECT_EQ(pool.stats().cached, 4);
  KvSequence other = pool.open(count_from(5000, 1));
  ASSERT_TRUE(pool.reserve(other, 6 * kPageTokens));
  EXPECT_EQ(hit(pool, left), 32);
  EXPECT_EQ(hit(pool, right), 32);
  pool.check();
  pool.close(std::move(other));
}

TEST(KvPool, HeldPagesAreNeverEvicted) {
  KvPool pool({.num_pages = 4});
  KvSequence held = compute(pool, count_from(0, 33));
  compute_and_close(pool, count_from(0, 32) + count_from(900, 1));
  KvSequence other = pool.open(count_from(5000, 1));
  EXPECT_FALSE(pool.reserve(other, 17));
  EXPECT_TRUE(pool.reserve(other, 16));
  pool.check();
  pool.close(std::move(held));
  pool.close(std::move(other));
}

TEST(KvPool, PeekTellsHowManyPagesTheHitTakesOutOfTheAvailable) {
  KvPool pool({.num_pages = 16});
  KvSequence held = compute(pool, count_from(0, 20));
  compute_and_close(pool, count_from(0, 60));
  const PrefixHit found = pool.peek_prefix(count_from(0, 60));
  EXPECT_EQ(found.tokens, 48);
  EXPECT_EQ(found.cached_pages, 2);
  const std::int32_t before = pool.available();
  KvSequence again = pool.open(count_from(0, 60));
  EXPECT_EQ(pool.available(), before - found.cached_pages);
  pool.close(std::move(again));
  pool.close(std::move(held));
}

TEST(KvPool, CountsThePagesThatTheWindowLeavesBehind) {
  KvPool pool({.num_pages = 16, .window = 20});
  KvSequence sequence = compute(pool, count_from(0, 100));
  pool.release_passed(sequence);
  EXPECT_EQ(pool.stats().passed, 5u);  // of the 100 tokens the next one sees the last 19: from page 5 on
  pool.release_passed(sequence);
  EXPECT_EQ(pool.stats().passed, 5u);
  pool.close(std::move(sequence));
}

TEST(KvPool, DropsTheCache) {
  KvPool pool({.num_pages = 16});
  compute_and_close(pool, count_from(0, 60));
  KvSequence held = compute(pool, count_from(0, 33));
  pool.drop_cache();
  pool.check();
  EXPECT_EQ(pool.stats().cached, 0);
  EXPECT_EQ(pool.stats().free, 13);
  EXPECT_EQ(hit(pool, count_from(0, 60)), 32) << "held pages stay found";
  pool.close(std::move(held));
  pool.drop_cache();
  EXPECT_EQ(pool.stats().free, 16);
  EXPECT_EQ(hit(pool, count_from(0, 60)), 0);
}

TEST(KvPool, WithoutPrefixCacheNothingIsShared) {
  KvPool pool({.num_pages = 16, .prefix_cache = false});
  const Tokens tokens = count_from(0, 40);
  KvSequence a = compute(pool, tokens), b = compute(pool, tokens);
  EXPECT_EQ(b.committed_tokens(), 40);
  EXPECT_EQ(pool.stats().held, 6);
  EXPECT_EQ(hit(pool, tokens), 0);
  EXPECT_EQ(pool.next_page_hash(pool.open(tokens), tokens), std::nullopt);
  pool.close(std::move(a));
  pool.close(std::move(b));
  pool.check();
  EXPECT_EQ(pool.stats().free, 16);
}

// Two pages with equal 64-bit hashes and different tokens, constructed from the hash's definition: each round
// is a bijection, so the second pair can undo what the first changed.
TEST(KvPool, ACollisionNeverSharesWrongKv) {
  const auto pair = [](TokenId high, TokenId low) {
    return std::uint64_t{static_cast<std::uint32_t>(high)} << 32 | static_cast<std::uint32_t>(low);
  };
  const Tokens honest = count_from(1, 17);
  Tokens forged = honest;
  forged[0] = 777;
  const std::uint64_t honest_state = mix64(chain_root(0) ^ pair(honest[0], honest[1]));
  const std::uint64_t forged_state = mix64(chain_root(0) ^ pair(forged[0], forged[1]));
  const std::uint64_t undo = pair(honest[2], honest[3]) ^ honest_state ^ forged_state;
  forged[2] = static_cast<TokenId>(undo >> 32);
  forged[3] = static_cast<TokenId>(undo);
  const auto hash = [](const Tokens& tokens) {
    return chain_hash(chain_root(0), std::span(tokens).first<kPageTokens>());
  };
  ASSERT_EQ(hash(honest), hash(forged));
  ASSERT_NE(honest, forged);

  KvPool pool({.num_pages = 16});
  compute_and_close(pool, honest);
  EXPECT_EQ(hit(pool, forged), 0);
  KvSequence forger = compute(pool, forged);
  EXPECT_EQ(hit(pool, honest), 16);
  EXPECT_EQ(hit(pool, forged), 16) << "both are kept";
  KvSequence honest_again = pool.open(honest);
  EXPECT_NE(honest_again.pages()[0], forger.pages()[0]);
  // Equal hashes chain into equal hashes: what follows must not be confused either.
  const Tokens honest_long = Tokens(honest.begin(), honest.begin() + 16) + count_from(300, 20);
  const Tokens forged_long = Tokens(forged.begin(), forged.begin() + 16) + count_from(300, 20);
  compute_and_close(pool, honest_long);
  EXPECT_EQ(hit(pool, honest_long), 32);
  EXPECT_EQ(hit(pool, forged_long), 16);
  pool.close(std::move(forger));
  pool.close(std::move(honest_again));
  pool.check();
}

TEST(KvPool, RefusesImpossibleCommits) {
  KvPool pool({.num_pages = 4});
  const Tokens tokens = count_from(0, 40);
  KvSequence sequence = pool.open(tokens);
  ASSERT_TRUE(pool.reserve(sequence, 32));
  EXPECT_THROW(pool.commit(sequence, tokens, 33), Error) << "no page";
  EXPECT_THROW(pool.commit(sequence, count_from(0, 10), 11), Error) << "no token";
  pool.commit(sequence, tokens, 20);
  EXPECT_THROW(pool.commit(sequence, tokens, 19), Error) << "backwards";
  pool.close(std::move(sequence));
}

}  // namespace
}  // namespace mlxs
