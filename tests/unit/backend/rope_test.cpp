#include "backend/cpu/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace mlxs::cpu {
namespace {

TEST(Rope, AnglesAreAccurateAtAnyPosition) {
  ThreadPool pool(2);
  RopeCache cache;
  std::vector<float> frequencies;
  for (int i = 0; i < 48; ++i) frequencies.push_back(static_cast<float>(std::pow(500000.0, -i / 48.0)));
  std::vector<std::int32_t> positions{0, 1, 2, 3, 100, 8191, 131071, 1000000};
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) positions.push_back(static_cast<std::int32_t>(random() % 200000));
  for (const bool interleaved : {false, true}) {
    const RopeSpec spec{96, interleaved, frequencies, 1.25f};
    const RopeTable& table = cache.get(pool, positions, spec);
    ASSERT_EQ(table.half, 48);
    ASSERT_EQ(table.columns, interleaved ? 96 : 48);
    for (std::size_t row = 0; row < positions.size(); ++row) {
      for (std::size_t i = 0; i < 48; ++i) {
        const double angle = positions[row] * static_cast<double>(frequencies[i]);
        const std::size_t at = row * static_cast<std::size_t>(table.columns) + (interleaved ? 2 * i : i);
        // f32's own rounding of values up to 1.25, and little more.
        EXPECT_NEAR(static_cast<double>(table.cos[at]), 1.25 * std::cos(angle), 1.2e-7)
            << positions[row] << " " << i;
        EXPECT_NEAR(static_cast<double>(table.sin[at]), (interleaved ? -1.25 : 1.25) * std::sin(angle),
                    1.2e-7);
        if (interleaved) {
          EXPECT_EQ(table.cos[at + 1], table.cos[at]);
          EXPECT_EQ(table.sin[at + 1], -table.sin[at]);
        }
      }
    }
  }
}

TEST(Rope, KeepsTwoTablesAndNeverAStaleOne) {
  ThreadPool pool(1);
  RopeCache cache;
  std::vector<float> local{1.0f, 0.1f}, global{1.0f, 0.01f};
  std::vector<std::int32_t> positions{5, 6};
  const RopeSpec a{4, false, local, 1.0f}, b{4, false, global, 1.0f};
  const float* first = cache.get(pool, positions, a).cos.data();
  const float* second = cache.get(pool, positions, b).cos.data();
  EXPECT_NE(first, second);
  for (int layer = 0; layer < 4; ++layer) {  // layers alternate: nothing is computed again
    EXPECT_EQ(cache.get(pool, positions, a).cos.data(), first);
    EXPECT_EQ(cache.get(pool, positions, b).cos.data(), second);
  }
  const auto cos_of = [&](const RopeSpec& spec) { return cache.get(pool, positions, spec).cos[1]; };
  EXPECT_FLOAT_EQ(cos_of(a), std::cos(0.5f));
  positions[0] = 7;  // the same memory with other values
  EXPECT_FLOAT_EQ(cos_of(a), std::cos(0.7f));
  local[1] = 0.3f;
  EXPECT_FLOAT_EQ(cos_of(a), std::cos(2.1f));
  RopeSpec scaled = a;
  scaled.magnitude = 2.0f;
  EXPECT_FLOAT_EQ(cos_of(scaled), 2 * std::cos(2.1f));
  RopeSpec interleaved = a;
  interleaved.interleaved = true;
  EXPECT_EQ(cache.get(pool, positions, interleaved).columns, 4);
  EXPECT_EQ(cache.get(pool, positions, a).columns, 2);
  positions.pop_back();
  EXPECT_EQ(cache.get(pool, positions, a).cos.size(), 2u);
  EXPECT_EQ(cache.get(pool, positions, RopeSpec{}).half, 0);
}

}  // namespace
}  // namespace mlxs::cpu
