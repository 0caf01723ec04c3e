// Every other backend of this build against the CPU's, op by op: the same ragged steps over the same random
// weights. The bound is what bf16 keys, values and (on GPUs) activations leave of values of order 1; both
// sides round differently.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string_view>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "conformance_model.h"
#include "mlxs/error.h"
#include "random_weights.h"

namespace mlxs {
namespace {

constexpr double kBound = 1e-2;

using test::AttentionCase;
using test::distance;
using test::random_floats;
using test::Steps;
using test::TinyBlock;
using test::weight_of;

const AttentionCase kCases[] = {
    {.name = "plain"},
    {.name = "interleaved", .interleaved = true},
    {.name = "partial_rope", .rope_dims = 32},
    {.name = "no_rope", .rope_dims = 0},
    {.name = "qk_norm", .norms = true},
    {.name = "gemma_norm", .norms = true, .unit_offset = true},
    {.name = "window", .window = 7},
    {.name = "soft_cap", .soft_cap = 20.0f},
    {.name = "soft_cap_window", .window = 5, .soft_cap = 20.0f},
    {.name = "sinks", .sinks = true},
    {.name = "sinks_soft_cap", .sinks = true, .soft_cap = 20.0f},
    {.name = "one_kv_head", .kv_heads = 1},
    {.name = "values_narrower", .value_dim = 32},
    {.name = "wide_heads", .heads = 2, .kv_heads = 1, .key_dim = 128, .value_dim = 128, .rope_dims = 128},
    {.name = "encoder", .causal = false},
    {.name = "latent",
     .heads = 8,
     .kv_heads = 1,
     .key_dim = 160,
     .value_dim = 128,
     .rope_dims = 32,
     .interleaved = true},
    {.name = "keys_192", .key_dim = 192, .value_dim = 128},
    {.name = "long_heads",
     .kv_heads = 2,
     .key_dim = 264,
     .value_dim = 328,
     .norms = true,
     .sinks = true,
     .window = 19,
     .soft_cap = 20.0f},
    {.name = "long_latent",
     .heads = 17,
     .kv_heads = 1,
     .key_dim = 576,
     .value_dim = 512,
     .interleaved = true},
};

const std::vector<std::vector<int>> kSteps{{20, 0, 0}, {1, 33, 0}, {1, 1, 5},
                                           {1, 1, 1},  {0, 17, 1}, {1, 1, 40}};

struct MoeCase {
  const char* name;
  MoeSpec::Gate gate = MoeSpec::Gate::kSoftmax;
  int used = 2, groups = 1, groups_used = 1;
  bool normalize = false, selection_bias = false, biases = false, mixed_storage = false;
  Activation activation = Activation::kSilu;
  float scale = 1.0f;
};

const MoeCase kMoeCases[] = {
    {.name = "softmax"},
    {.name = "softmax_normalized", .used = 3, .normalize = true},
    {.name = "softmax_of_chosen", .gate = MoeSpec::Gate::kSoftmaxOfChosen},
    {.name = "sigmoid_in_groups",
     .gate = MoeSpec::Gate::kSigmoid,
     .groups = 4,
     .groups_used = 2,
     .normalize = true,
     .selection_bias = true,
     .scale = 2.5f},
    {.name = "biases_and_clamps",
     .gate = MoeSpec::Gate::kSoftmaxOfChosen,
     .used = 4,
     .biases = true,
     .activation = Activation::kSwigluClamped},
    {.name = "one_of_all", .used = 1},
    {.name = "all", .used = 8},
    {.name = "mixed_storage", .mixed_storage = true},
};

// norm → mixture → + residual, for `rows` rows.
std::vector<float> run_moe(Backend& backend, const MoeCase& c, int rows) {
  constexpr int kHidden = 96, kWide = 64, kExperts = 8;
  unsigned seed = 100;
  const auto matrix = [&](int outputs, int inputs) {
    const auto count = static_cast<std::size_t>(outputs) * static_cast<std::size_t>(inputs);
    return weight_of(backend, random_floats(count, 1.0f / std::sqrt(static_cast<float>(inputs)), seed++),
                     outputs, WeightUse::kMatrix);
  };
  const auto vector = [&](int count, float around) {
    return weight_of(backend, random_floats(static_cast<std::size_t>(count), 0.3f, seed++, around), 1,
                     WeightUse::kVector);
  };
  const WeightPtr embedding =
      weight_of(backend, random_floats(64 * kHidden, 1.0f, seed++), 64, WeightUse::kEmbedding);
  const WeightPtr gain = vector(kHidden, 1.0f), router = matrix(kExperts, kHidden),
                  router_bias = vector(kExperts, 0.0f), selection_bias = vector(kExperts, 0.0f);
  std::vector<Expert> experts;
  for (int e = 0; e < kExperts; ++e) {
    Expert expert{.gate_up = matrix(2 * kWide, kHidden), .down = matrix(kHidden, kWide)};
    if (c.mixed_storage && e % 2 == 1) {
      std::mt19937 random(seed++);
      const cpu::test::RandomWeight weight = cpu::test::random_weight(DType::kQ8_0, kHidden, kWide, random);
      const RawWeight raw = weight.raw();
      expert.down = backend.prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
    }
    if (c.biases) {
      expert.gate_up_bias = vector(2 * kWide, 0.0f);
      expert.down_bias = vector(kHidden, 0.0f);
    }
    experts.push_back(std::move(expert));
  }
  backend.join_experts(experts);
  const auto kv =
      backend.make_kv({.layers = 1, .kv_heads = 1, .key_dim = 64, .value_dim = 64, .num_pages = 8});
  Steps steps(1, 64);
  Steps::Step step = steps.next({rows});
  backend.begin_step({step.tokens, step.positions, step.spans, step.sampled, kv.get()});
  const NormSpec norm{.gain = gain.get()};
  const Tensor x = backend.embed(*embedding);
  const Tensor y = backend.moe(x, {.gate = c.gate,
                                   .norm = &norm,
                                   .router = router.get(),
                                   .router_bias = c.biases ? router_bias.get() : nullptr,
                                   .selection_bias = c.selection_bias ? selection_bias.get() : nullptr,
                                   .experts = experts,
                                   .used = c.used,
                                   .groups = c.groups,
                                   .groups_used = c.groups_used,
                                   .normalize = c.normalize,
                                   .scale = c.scale,
                                   .activation = c.activation,
                                   .residual = backend.embed(*embedding)});
  std::vector<float> out(static_cast<std::size_t>(rows * kHidden));
  backend.end_step();
  backend.read(y, out);
  return out;
}

class Conformance : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> cpu_ = make_backend("cpu", {.threads = 2});
  std::unique_ptr<Backend> other_ = make_backend(GetParam());

  // As many rows as take a backend's ways for whole prompts, and a step behind them.
  void expect_prompts(std::string_view name, DType kv_type, double bound) {
    const AttentionCase& c = *std::ranges::find(kCases, name, &AttentionCase::name);
    TinyBlock reference(*cpu_, c, kv_type), tried(*other_, c, kv_type);
    Steps steps(3, TinyBlock::kVocabulary, 20);
    for (const std::vector<int>& counts : {std::vector<int>{290, 230, 0}, {1, 20, 7}}) {
      const Steps::Step step = steps.next(counts);
      EXPECT_LT(distance(tried.run(step), reference.run(step)), bound)
          << name << ", " << step.tokens.size() << " rows";
    }
  }
};

TEST_P(Conformance, AttentionAndFusionsOverRaggedSteps) {
  for (const AttentionCase& c : kCases) {
    TinyBlock reference(*cpu_, c), tried(*other_, c);
    Steps steps(3, TinyBlock::kVocabulary);
    for (std::size_t i = 0; i < kSteps.size(); ++i) {
      if (!c.causal && i > 0) break;  // an encoder has one step
      const Steps::Step step = steps.next(kSteps[i]);
      EXPECT_LT(distance(tried.run(step), reference.run(step)), kBound) << c.name << ", step " << i;
    }
  }
}

// Keys and values of 8 bits: both sides round to codes, of values that differ by what bf16 leaves.
constexpr double kInt8Bound = 2 * kBound;
constexpr std::string_view kInt8Cases[] = {"plain",           "window",     "sinks_soft_cap", "one_kv_head",
                                           "values_narrower", "wide_heads", "encoder",        "latent",
                                           "keys_192",        "long_heads", "long_latent"};

TEST_P(Conformance, KeysAndValuesOf8Bits) {
  try {
    other_->make_kv(
        {.layers = 1, .kv_heads = 1, .key_dim = 64, .value_dim = 64, .num_pages = 1, .type = DType::kI8});
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::kInvalidArgument);
    GTEST_SKIP() << error.full();
  }
  for (const AttentionCase& c : kCases) {
    if (std::ranges::find(kInt8Cases, c.name) == std::end(kInt8Cases)) continue;
    TinyBlock reference(*cpu_, c, DType::kI8), tried(*other_, c, DType::kI8);
    Steps steps(4, TinyBlock::kVocabulary);
    for (std::size_t i = 0; i < kSteps.size(); ++i) {
      if (!c.causal && i > 0) break;  // an encoder has one step
      const Steps::Step step = steps.next(kSteps[i]);
      EXPECT_LT(distance(tried.run(step, c.causal ? 1 : 0), reference.run(step)), kInt8Bound)
          << c.name << ", step " << i;
      if (i != 3) continue;  // what was written goes on from another page
      auto& pages = steps.sequences[0].pages;
      std::swap(pages[1], steps.sequences[3].pages[0]);
      reference.copy_page(steps.sequences[3].pages[0], pages[1]);
      tried.copy_page(steps.sequences[3].pages[0], pages[1]);
    }
  }
  for (const char* name : {"qk_norm", "values_narrower"}) expect_prompts(name, DType::kI8, kInt8Bound);
}

TEST_P(Conformance, PromptsOfManyRows) {
  for (const char* name :
       {"plain", "interleaved", "partial_rope", "qk_norm", "wide_heads", "values_narrower"})
    expect_prompts(name, DType::kBF16, kBound);
}

// Two runs that change places, a piece taken twice, and a whole tensor behind them.
void expect_assembled(Backend& backend) {
  constexpr int kColumns = 32, kTokens = 5;
  const WeightPtr table =
      weight_of(backend, random_floats(kTokens * kColumns, 1.0f, 3), kTokens, WeightUse::kEmbedding);
  const std::vector<TokenId> tokens{4, 0, 3, 3, 1};
  const std::vector<std::int32_t> positions{0, 1, 2, 3, 4};
  backend.begin_step({tokens, positions, {}, positions, nullptr});
  const Tensor a = backend.embed(*table), b = backend.embed(*table, 0.5f);
  const ColumnRuns parts[] = {
      {.from = a, .first = 7, .columns = 5, .to = 8, .runs = 2, .step = 10, .to_step = -8},
      {.from = b, .first = 1, .columns = 3, .to = 5},
      {.from = b, .first = 1, .columns = 3, .to = 13},
      {.from = b, .columns = kColumns, .to = 16}};
  const Tensor y = backend.assemble(parts, 16 + kColumns);
  backend.end_step();
  std::vector<float> from_a(kTokens * kColumns), from_b(from_a.size()), got(kTokens * (16 + kColumns));
  backend.read(a, from_a);
  backend.read(b, from_b);
  backend.read(y, got);
  ASSERT_EQ(y.columns, 16 + kColumns);
  for (int row = 0; row < kTokens; ++row) {
    const float *own_a = &from_a[static_cast<std::size_t>(row * kColumns)],
                *own_b = &from_b[static_cast<std::size_t>(row * kColumns)];
    std::vector<float> expected(own_a + 17, own_a + 22);
    expected.insert(expected.end(), own_b + 1, own_b + 4);
    expected.insert(expected.end(), own_a + 7, own_a + 12);
    expected.insert(expected.end(), own_b + 1, own_b + 4);
    expected.insert(expected.end(), own_b, own_b + kColumns);
    const auto begin = got.begin() + row * (16 + kColumns);
    EXPECT_EQ(std::vector<float>(begin, begin + 16 + kColumns), expected) << "row " << row;
  }
}

TEST(Assemble, TakesColumnsOnTheCpu) { expect_assembled(*make_backend("cpu", {.threads = 2})); }
TEST_P(Conformance, AssembleTakesColumns) { expect_assembled(*other_); }

TEST_P(Conformance, StepsOfAProgramMayBeReplayed) {
  for (const AttentionCase& c : {kCases[0], kCases[4], kCases[6], kCases[17]}) {
    TinyBlock reference(*cpu_, c), tried(*other_, c);
    Steps steps(3, TinyBlock::kVocabulary);
    // Each shape of a decode step several times, prompts and other shapes between.
    const std::vector<std::vector<int>> counts{{20, 7, 33}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 0, 1},
                                               {0, 1, 1},   {1, 1, 0}, {5, 0, 1}, {1, 1, 1}, {0, 1, 0},
                                               {0, 0, 1},   {1, 0, 0}, {1, 1, 1}};
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const Steps::Step step = steps.next(counts[i]);
      const SampleRow sampling{.top_logprobs =
                                   i % 3 == 0 ? 2 : -1};  // backends may sample such rows elsewhere
      EXPECT_LT(distance(tried.run(step, 1, sampling), reference.run(step)), kBound)
          << c.name << ", step " << i;
    }
  }
}

TEST_P(Conformance, ACopiedPageServesAsWell) {
  TinyBlock reference(*cpu_, kCases[0]), tried(*other_, kCases[0]);
  Steps steps(2, TinyBlock::kVocabulary);
  const Steps::Step prompt = steps.next({20});
  reference.run(prompt);
  tried.run(prompt);
  auto& pages = steps.sequences[0].pages;
  const PageId spare = steps.sequences[1].pages[0];
  reference.copy_page(pages[1], spare);
  tried.copy_page(pages[1], spare);
  pages[1] = spare;
  const Steps::Step step = steps.next({1});
  EXPECT_LT(distance(tried.run(step), reference.run(step)), kBound);
}

TEST_P(Conformance, MixturesOfExperts) {
  for (const MoeCase& c : kMoeCases) {
    for (const int rows : {1, 3, 40}) {
      const std::vector<float> expected = run_moe(*cpu_, c, rows);
      std::vector<float> got;
      try {
        got = run_moe(*other_, c, rows);
      } catch (const Error& error) {  // a backend may refuse such a layer, with the reason
        ASSERT_TRUE(c.mixed_storage && error.code() == ErrorCode::kModelLoad) << c.name << error.what();
        continue;
      }
      std::vector<double> worst(static_cast<std::size_t>(rows));  // of each row
      const std::size_t columns = expected.size() / worst.size();
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const double error = std::abs(static_cast<double>(got[i]) - expected[i]);
        ASSERT_FALSE(std::isnan(error)) << c.name;
        worst[i / columns] = std::max(worst[i / columns], error);
      }
      // Where two experts score alike, rounding chooses: most rows must agree, all where all are chosen.
      std::ranges::sort(worst);
      const double compared = c.used == 8 || rows < 5 ? worst.back() : worst[worst.size() * 3 / 4];
      EXPECT_LT(compared, 3 * kBound) << c.name << ", " << rows << " rows";  // of values up to 5
    }
  }
}

TEST_P(Conformance, EveryStorageType) {
  std::mt19937 random(11);
  const int columns = 512, outputs = 48;
  for (const DType type : cpu::test::kWeightTypes) {
    const cpu::test::RandomWeight weight = cpu::test::random_weight(type, outputs, columns, random);
    for (const int rows : {1, 3, 12, 30, 40}) {
      std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
      for (int i = 0; i < rows; ++i) tokens[static_cast<std::size_t>(i)] = i * 17 % outputs;
      std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
      std::iota(positions.begin(), positions.end(), 0);
      std::vector<std::vector<float>> results;
      for (Backend* backend : {cpu_.get(), other_.get()}) {
        const RawWeight raw = weight.raw();
        const WeightPtr table = backend->prepare({&raw, 1}, WeightUse::kEmbedding, nullptr);
        backend->begin_step({tokens, positions, {}, positions, nullptr});
        const Tensor x = backend->embed(*table);
        const Tensor y = backend->linear(x, *table), gated = backend->linear(x, *table, {.gated = true});
        backend->end_step();
        std::vector<float> out(static_cast<std::size_t>(rows * outputs));
        backend->read(y, out);
        results.push_back(std::move(out));
        out.resize(static_cast<std::size_t>(rows * outputs / 2));
        backend->read(gated, out);
        results.push_back(std::move(out));
      }
      EXPECT_LT(distance(results[2], results[0]), kBound) << dtype_info(type).name << ", " << rows << " rows";
      EXPECT_LT(distance(results[3], results[1]), 2 * kBound)
          << dtype_info(type).name << ", " << rows << " rows, gated";
    }
  }
}

// As mlx-lm saves them: groups of several sizes, long sums, gates and ups in one matrix, the norm before it.
TEST_P(Conformance, GroupsOfEverySize) {
  std::mt19937 random(12);
  constexpr int kColumns = 1408;  // 22 units: shares of a sum that are not equal
  const std::vector<float> gains = random_floats(kColumns, 0.3f, 9, 1.0f);
  for (const DType type : {DType::kMlx4, DType::kMlx8}) {
    for (const int group : {32, 64, 128}) {
      for (const int outputs : {40, 96}) {
        const auto count = static_cast<std::size_t>(outputs);
        std::vector<std::byte> codes(row_bytes(type, kColumns) * count);
        for (std::byte& byte : codes) byte = static_cast<std::byte>(random() >> 11);
        const std::size_t groups = count * kColumns / static_cast<std::size_t>(group);
        const float unit = type == DType::kMlx4 ? 1.0f : 1.0f / 16;
        const std::vector<float> scales = random_floats(groups, 0.02f * unit, 13, 0.1f * unit),
                                 biases = random_floats(groups, 0.1f, 14, -0.75f);
        const RawWeight raw{.name = "w",
                            .type = type,
                            .rows = outputs,
                            .columns = kColumns,
                            .bytes = codes,
                            .scales = {.type = DType::kF32,
                                       .group = group,
                                       .scales = std::as_bytes(std::span(scales)),
                                       .biases = std::as_bytes(std::span(biases))}};
        for (const int rows : {1, 4, 12, 30, 40, 130, 1030}) {
          if (rows > 1000 && (group != 64 || outputs != 96)) continue;  // once is enough
          std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
          for (int i = 0; i < rows; ++i) tokens[static_cast<std::size_t>(i)] = i * 17 % outputs;
          std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
          std::iota(positions.begin(), positions.end(), 0);
          std::vector<std::vector<float>> results;
          for (Backend* backend : {cpu_.get(), other_.get()}) {
            const WeightPtr table = backend->prepare({&raw, 1}, WeightUse::kEmbedding, nullptr),
                            gain = weight_of(*backend, gains, 1, WeightUse::kVector);
            const NormSpec norm{.gain = gain.get()};
            backend->begin_step({tokens, positions, {}, positions, nullptr});
            const Tensor x = backend->embed(*table);
            const Tensor y = backend->linear(x, *table, {.norm = &norm}),
                         gated = backend->linear(x, *table, {.norm = &norm, .gated = true});
            backend->end_step();
            for (const Tensor& tensor : {y, gated}) {
              std::vector<float> out(static_cast<std::size_t>(rows) *
                                     static_cast<std::size_t>(tensor.columns));
              backend->read(tensor, out);
              results.push_back(std::move(out));
            }
          }
          const std::string what = std::string(dtype_info(type).name) + ", groups of " +
                                   std::to_string(group) + ", " + std::to_string(outputs) + " outputs, " +
                                   std::to_string(rows) + " rows";
          EXPECT_LT(distance(results[2], results[0]), kBound) << what;
          EXPECT_LT(distance(results[3], results[1]), 2 * kBound) << what << ", gated";
        }
      }
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Conformance);
INSTANTIATE_TEST_SUITE_P(Backends, Conformance, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
