#include "backend/moe_routing.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mlxs {
namespace {

MoeRouting routed(const std::vector<float>& logits, MoeSpec spec, std::size_t experts,
                  const std::vector<float>& selection_bias = {}) {
  const std::vector<Expert> some(experts);
  spec.experts = some;
  MoeRouting routing;
  route(logits, {}, selection_bias, spec, routing);
  return routing;
}

TEST(MoeRouting, SoftmaxOverAllAndOverTheChosen) {
  const std::vector<float> logits{0.0f, 2.0f, 1.0f};
  const double all = 1.0 + std::exp(2.0) + std::exp(1.0);
  const MoeRouting over_all = routed(logits, {.gate = MoeSpec::Gate::kSoftmax, .used = 2}, 3);
  EXPECT_NEAR(over_all.weights[0], std::exp(2.0) / all, 1e-6);
  EXPECT_NEAR(over_all.weights[1], std::exp(1.0) / all, 1e-6);
  const MoeRouting chosen = routed(logits, {.gate = MoeSpec::Gate::kSoftmaxOfChosen, .used = 2}, 3);
  EXPECT_NEAR(chosen.weights[0], 1.0 / (1.0 + std::exp(-1.0)), 1e-6);
  const MoeRouting normal =
      routed(logits, {.gate = MoeSpec::Gate::kSoftmax, .used = 2, .normalize = true, .scale = 2.5f}, 3);
  EXPECT_NEAR(normal.weights[0] + normal.weights[1], 2.5, 1e-5);
}

TEST(MoeRouting, RowsStandByExpertAndTiesGoToTheLowerIndex) {
  // Row 0 ties between all; row 1 wants experts 2 and 1.
  const MoeRouting r = routed({1, 1, 1, 0, 5, 6}, {.gate = MoeSpec::Gate::kSoftmaxOfChosen, .used = 2}, 3);
  EXPECT_EQ(r.first_row, (std::vector<std::int32_t>{0, 1, 3, 4}));
  EXPECT_EQ(r.rows, (std::vector<std::int32_t>{0, 0, 1, 1}));
  EXPECT_EQ(r.places, (std::vector<std::int32_t>{0, 1, 3, 2}));
}

TEST(MoeRouting, SelectionBiasChoosesButDoesNotWeigh) {
  const MoeRouting r =
      routed({0, 1, 2, 3}, {.gate = MoeSpec::Gate::kSigmoid, .used = 1}, 4, {10.0f, 0, 0, 0});
  EXPECT_EQ(r.first_row, (std::vector<std::int32_t>{0, 1, 1, 1, 1}));
  EXPECT_FLOAT_EQ(r.weights[0], 0.5f);  // sigmoid(0)
}

TEST(MoeRouting, OnlyTheBestGroupsMayBeChosenFrom) {
  // Group 0 holds the single best expert, group 1 the better pair.
  const MoeSpec spec{.gate = MoeSpec::Gate::kSigmoid, .used = 2, .groups = 2, .groups_used = 1};
  const MoeRouting r = routed({3.0f, -9.0f, 2.0f, 1.9f}, spec, 4);
  EXPECT_EQ(r.first_row, (std::vector<std::int32_t>{0, 0, 0, 1, 2}));
}

TEST(MoeRouting, NanStaysInItsRow) {
  const float nan = std::nanf("");
  const MoeRouting r = routed({nan, nan, nan, 0, 1, 2}, {.gate = MoeSpec::Gate::kSoftmax, .used = 2}, 3);
  EXPECT_TRUE(std::isnan(r.weights[0]));
  EXPECT_NEAR(r.weights[2], 0.66524, 1e-4);
}

}  // namespace
}  // namespace mlxs
