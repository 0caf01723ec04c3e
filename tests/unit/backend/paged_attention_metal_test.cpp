// The MLX backend's Metal kernel, run on the host, against attention as the op set defines it: no Mac needed
// to find an index that is wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "backend/ops.h"
#include "metal_on_host.h"

namespace mlxs::test {
namespace {

constexpr int PAGE_TOKENS = kPageTokens;

struct Inputs {
  std::vector<float> queries, keys, values, sinks;
  std::vector<int> pages, lengths;
  int pages_per_row = 0;
  float scale = 0, soft_cap = 0;
};

template <int HEADS, int KV_HEADS, int KEY_DIM, int VALUE_DIM, int WINDOW, bool HAS_SOFT_CAP, bool HAS_SINKS>
struct Kernel {
  static Inputs inputs(const std::vector<int>& lengths) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const auto floats = [&](std::size_t count) {
      std::vector<float> out(count);
      for (float& x : out) x = normal(random);
      return out;
    };
    Inputs in{.lengths = lengths, .scale = 0.3f, .soft_cap = 2.0f};
    for (const int length : lengths)
      in.pages_per_row = std::max(in.pages_per_row, (length + PAGE_TOKENS - 1) / PAGE_TOKENS);
    const std::size_t pages = lengths.size() * static_cast<std::size_t>(in.pages_per_row);
    for (std::size_t i = 0; i < pages; ++i) in.pages.push_back(static_cast<int>((i * 7 + 3) % pages));
    in.queries = floats(lengths.size() * HEADS * KEY_DIM);
    in.keys = floats(pages * PAGE_TOKENS * KV_HEADS * KEY_DIM);
    in.values = floats(pages * PAGE_TOKENS * KV_HEADS * VALUE_DIM);
    in.sinks = floats(HEADS);
    return in;
  }

  static std::vector<float> run(const Inputs& in) {
    using T = float;
    constexpr int SIMDGROUPS = 2;
    std::vector<float> out(in.lengths.size() * HEADS * VALUE_DIM, NAN);
    const auto &queries = in.queries, &keys = in.keys, &values = in.values, &sinks = in.sinks;
    const auto &pages = in.pages, &lengths = in.lengths;
    const float scale = in.scale, soft_cap = in.soft_cap;
    const int pages_shape[] = {static_cast<int>(lengths.size()), in.pages_per_row};
    for (unsigned y = 0; y < HEADS; ++y) {
      for (unsigned x = 0; x < lengths.size(); ++x) {
        const Grid threadgroup_position_in_grid{x, y, 0};
        run_threadgroup(SIMDGROUPS,
                        [&](unsigned thread_index_in_simdgroup, unsigned simdgroup_index_in_threadgroup) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include "backend/mlx/paged_attention.metal"
#pragma GCC diagnostic pop
                        });
      }
    }
    return out;
  }

  static std::vector<double> expected(const Inputs& in) {
    std::vector<double> out;
    for (std::size_t row = 0; row < in.lengths.size(); ++row) {
      const int length = in.lengths[row], first = WINDOW > 0 ? std::max(0, length - WINDOW) : 0;
      for (std::size_t head = 0; head < HEADS; ++head) {
        std::vector<double> sum(VALUE_DIM, 0.0);
        double total = HAS_SINKS ? std::exp(static_cast<double>(in.sinks[head])) : 0.0;
        for (int token = first; token < length; ++token) {
          const auto page =
              static_cast<std::size_t>(in.pages[row * static_cast<std::size_t>(in.pages_per_row) +
                                                static_cast<std::size_t>(token / 16)]);
          const std::size_t slot =
              (page * 16 + static_cast<std::size_t>(token % 16)) * KV_HEADS + head * KV_HEADS / HEADS;
          double score = 0;
          for (std::size_t i = 0; i < KEY_DIM; ++i)
            score += static_cast<double>(in.queries[(row * HEADS + head) * KEY_DIM + i]) *
                     static_cast<double>(in.keys[slot * KEY_DIM + i]);
          score *= static_cast<double>(in.scale);
          if (HAS_SOFT_CAP)
            score = static_cast<double>(in.soft_cap) * std::tanh(score / static_cast<double>(in.soft_cap));
          total += std::exp(score);
          for (std::size_t i = 0; i < VALUE_DIM; ++i)
            sum[i] += std::exp(score) * static_cast<double>(in.values[slot * VALUE_DIM + i]);
        }
        for (const double value : sum) out.push_back(value / total);
      }
    }
    return out;
  }

  static void check(const std::vector<int>& lengths) {
    const Inputs in = inputs(lengths);
    const std::vector<float> got = run(in);
    const std::vector<double> want = expected(in);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << i;
  }
};

TEST(PagedAttentionMetal, Plain) { Kernel<4, 2, 64, 64, 0, false, false>::check({1, 16, 17, 40}); }
TEST(PagedAttentionMetal, DimsThatDoNotFillTheLanes) {
  Kernel<2, 1, 80, 48, 0, false, false>::check({5, 33});
}
TEST(PagedAttentionMetal, Window) { Kernel<2, 2, 32, 32, 7, false, false>::check({3, 7, 8, 37}); }
TEST(PagedAttentionMetal, SoftCap) { Kernel<2, 1, 64, 64, 0, true, false>::check({20, 2}); }
TEST(PagedAttentionMetal, Sinks) { Kernel<3, 1, 32, 32, 0, false, true>::check({1, 19}); }
TEST(PagedAttentionMetal, Everything) { Kernel<4, 2, 96, 72, 18, true, true>::check({1, 18, 47}); }
TEST(PagedAttentionMetal, Latent) { Kernel<3, 1, 160, 128, 0, false, false>::check({18}); }

}  // namespace
}  // namespace mlxs::test
