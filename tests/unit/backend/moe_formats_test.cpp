// A mixture of experts and the embedding in every storage type, the mixture on every path. The reference is
// the definition in f64: linear_reference.h's for an expert's two products, whose bounds add up: what the
// first may be off reaches the second by the sizes of its weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "backend/cpu/moe.h"
#include "linear_reference.h"
#include "weight_forms.h"

namespace mlxs::cpu {
namespace {

using test::all_forms;
using test::Form;
using test::make_problem;
using test::Path;
using test::paths;
using test::Problem;
using test::RandomWeight;
using test::Reference;
using test::solve;

constexpr std::size_t kExperts = 4, kUsed = 2;

WeightPtr packed(ThreadPool& pool, const std::vector<RandomWeight>& parts) {
  std::vector<RawWeight> raw;
  for (const RandomWeight& part : parts) raw.push_back(part.raw());
  return std::make_unique<CpuWeight>(pool, raw, WeightUse::kMatrix, nullptr);
}

const std::vector<double>& bound_of(const Reference& reference, const Path& path, DType type) {
  if (type == DType::kF32 || (!path.integers && !path.tiles)) return reference.float_bound;
  return path.tiles ? reference.tile_bound : reference.integer_bound;
}

struct ExpertWeights {
  std::vector<RandomWeight> gate_up;
  RandomWeight down;
};

// One expert's answers for one row, and how far off a path may be.
struct Answer {
  std::vector<double> y, bound;
};
Answer solve_expert(const ExpertWeights& expert, const float* x, const Path& path) {
  const std::int64_t hidden = expert.down.rows, inner = expert.down.columns;
  Problem first{.parts = expert.gate_up, .rows = 1};
  first.fusion = {.gated = true, .activation = Activation::kSilu};
  first.x.assign(x, x + hidden);
  const Reference in = solve(first);
  const std::vector<double>& in_bound = bound_of(in, path, expert.down.type);
  Problem second{.parts = {expert.down}, .rows = 1};
  second.x.assign(in.y.begin(), in.y.end());
  const Reference out = solve(second);
  Answer answer{out.y, bound_of(out, path, expert.down.type)};
  std::vector<float> w(static_cast<std::size_t>(inner));
  for (std::int64_t o = 0; o < hidden; ++o) {
    expert.down.read_row(o, w.data());
    double off = 0;
    for (std::size_t k = 0; k < w.size(); ++k) off += std::abs(static_cast<double>(w[k])) * in_bound[k];
    answer.bound[static_cast<std::size_t>(o)] += 1.05 * off;  // its own bound was that of exact inputs
  }
  return answer;
}

// The chosen experts of a row and their weights: softmax over the best two logits.
std::vector<std::pair<std::size_t, double>> choose(const RandomWeight& router, const float* x) {
  std::vector<double> logits;
  std::vector<float> w(static_cast<std::size_t>(router.columns));
  for (std::int64_t e = 0; e < router.rows; ++e) {
    router.read_row(e, w.data());
    logits.push_back(std::inner_product(w.begin(), w.end(), x, 0.0));
  }
  std::vector<std::size_t> order(kExperts);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  EXPECT_GT(logits[order[kUsed - 1]] - logits[order[kUsed]], 1e-4)
      << "rounding may choose: take another seed";
  const double share = 1.0 / (1.0 + std::exp(logits[order[1]] - logits[order[0]]));
  return {{order[0], share}, {order[1], 1.0 - share}};
}

class MoeForms : public testing::TestWithParam<Form> {};

TEST_P(MoeForms, EveryPathIsTheDefinition) {
  std::mt19937 random(31);
  ThreadPool pool(2);
  const std::int64_t block = GetParam().block;
  const std::int64_t hidden = block == 1 ? 40 : block < 128 ? 3 * block : block;
  const std::int64_t inner = block == 1 ? 72 : 2 * block;
  std::vector<ExpertWeights> weights;
  std::vector<Expert> experts;
  for (std::size_t e = 0; e < kExperts; ++e) {
    ExpertWeights& one = weights.emplace_back(
        ExpertWeights{{GetParam().make(inner, hidden, random), GetParam().make(inner, hidden, random)},
                      GetParam().make(hidden, inner, random)});
    experts.push_back({.gate_up = packed(pool, one.gate_up), .down = packed(pool, {one.down})});
  }
  const RandomWeight router = test::random_weight(DType::kF32, kExperts, hidden, random);
  const WeightPtr packed_router = packed(pool, {router});
  const MoeSpec spec{.gate = MoeSpec::Gate::kSoftmaxOfChosen,
                     .router = packed_router.get(),
                     .experts = experts,
                     .used = static_cast<std::int32_t>(kUsed)};
  const auto width = static_cast<std::size_t>(hidden);
  for (const int rows : {1, 6, 33}) {
    const std::vector<float> x = make_problem({router}, rows, {}, random).x;
    for (const Path& path : paths()) {
      if (!path.runs) continue;
      StepArena arena;
      MoeRouting routing;
      std::vector<float> y(static_cast<std::size_t>(rows) * width);
      moe(pool, path.path, arena, spec, {.x = x.data(), .stride = width, .rows = rows, .norm = {}}, y.data(),
          routing);
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
        std::vector<double> expected(width), bound(width);
        for (const auto& [e, share] : choose(router, &x[row * width])) {
          const Answer answer = solve_expert(weights[e], &x[row * width], path);
          for (std::size_t i = 0; i < width; ++i) {
            expected[i] += share * answer.y[i];
            bound[i] +=
                share * answer.bound[i] + 0x1p-14 * std::abs(answer.y[i]);  // the share's own rounding
          }
        }
        for (std::size_t i = 0; i < width; ++i) {
          ASSERT_LE(std::abs(static_cast<double>(y[row * width + i]) - expected[i]), bound[i])
              << path.name << ", " << rows << " rows, row " << row << ", output " << i << ": "
              << y[row * width + i] << ", not " << expected[i];
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, MoeForms, testing::ValuesIn(all_forms()),
                         [](const auto& form) { return form.param.name; });

// embed() reads rows of the packed table. Off by the packed scale's rounding only: f16 of K types' products.
TEST(EmbeddingForms, RowsAreTheTable) {
  std::mt19937 random(32);
  ThreadPool pool(2);
  for (const Form& form : all_forms()) {
    const std::int64_t columns = form.block == 1 ? 40 : form.block < 128 ? 3 * form.block : form.block;
    const RandomWeight table = form.make(35, columns, random);
    const RawWeight raw = table.raw();
    const CpuWeight weight(pool, std::span(&raw, 1), WeightUse::kEmbedding, nullptr);
    const double bound = (form.block == 256 ? 0x1p-11 : 0.0) * table.largest + 0x1p-21 * table.largest;
    std::vector<float> got(static_cast<std::size_t>(columns)), expected(got.size());
    for (std::int64_t row = 0; row < table.rows; ++row) {
      weight.read_row(row, got.data());
      table.read_row(row, expected.data());
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], expected[i], bound) << form.name << ", row " << row << ", column " << i;
    }
  }
}

}  // namespace
}  // namespace mlxs::cpu
