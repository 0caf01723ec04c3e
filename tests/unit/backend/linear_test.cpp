// Every path of linear() against f64, for every storage type, row counts around each kernel's limits and
// every fusion. The bounds: linear_reference.h.
#include "backend/cpu/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "linear_reference.h"
#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

using test::check;
using test::Fusion;
using test::make_problem;
using test::multiply;
using test::Path;
using test::paths;
using test::Problem;
using test::random_weight;
using test::RandomWeight;

constexpr int kRowCounts[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 130};

class LinearTypes : public testing::TestWithParam<DType> {};

TEST_P(LinearTypes, EveryPathAndRowCount) {
  std::mt19937 random(7);
  ThreadPool pool(2);
  const int block = dtype_info(GetParam()).block_elements;
  const std::vector<std::int64_t> inputs = block == 256  ? std::vector<std::int64_t>{256, 768, 1536}
                                           : block == 32 ? std::vector<std::int64_t>{32, 96, 576, 1536}
                                                         : std::vector<std::int64_t>{1, 40, 96, 576, 1536};
  constexpr std::int64_t kOutputs[] = {16, 40, 7, 33, 64};
  std::size_t next = 0;
  for (const int rows : kRowCounts) {
    for (int i = 0; i < 2; ++i, ++next) {
      check(
          make_problem({random_weight(GetParam(), kOutputs[next % 5], inputs[next % inputs.size()], random)},
                       rows, {}, random),
          pool);
    }
  }
}

TEST_P(LinearTypes, EveryFusion) {
  constexpr Fusion kFusions[] = {
      {.name = "rms", .norm = RowNorm::Kind::kRms},
      {.name = "rms+1", .norm = RowNorm::Kind::kRms, .unit_offset = true},
      {.name = "layer norm", .norm = RowNorm::Kind::kLayer},
      {.name = "bias", .bias = true},
      {.name = "residual", .residual = true},
      {.name = "silu", .bias = true, .activation = Activation::kSilu},
      {.name = "gelu", .activation = Activation::kGelu},
      {.name = "gelu tanh", .residual = true, .activation = Activation::kGeluTanh},
      {.name = "gated silu", .norm = RowNorm::Kind::kRms, .gated = true, .activation = Activation::kSilu},
      {.name = "gated gelu",
       .bias = true,
       .gated = true,
       .residual = true,
       .activation = Activation::kGeluTanh},
      {.name = "soft cap", .norm = RowNorm::Kind::kRms, .soft_cap = 15.0f},
  };
  std::mt19937 random(8);
  ThreadPool pool(2);
  for (const Fusion& fusion : kFusions) {
    for (const int rows : {1, 3, 16, 33}) {
      const std::int64_t outputs =
          fusion.gated ? (rows == 3 ? 48 : 96) : 50;  // 48: halves that end inside a panel
      check(make_problem({random_weight(GetParam(), outputs, 768, random)}, rows, fusion, random), pool);
    }
  }
}

std::string type_name(const testing::TestParamInfo<DType>& info) {
  return std::string(dtype_info(info.param).name);
}
INSTANTIATE_TEST_SUITE_P(All, LinearTypes, testing::ValuesIn(test::kWeightTypes), type_name);

// ---------------------------------------------------------------- shapes of weights

TEST(Linear, StacksPartsOfDifferentTypes) {
  std::mt19937 random(9);
  ThreadPool pool(3);
  for (const int rows : {1, 5, 17, 70}) {
    const auto part = [&](DType type, std::int64_t outputs) {
      return random_weight(type, outputs, 512, random);
    };
    check(make_problem({part(DType::kQ4_K, 64), part(DType::kQ4_K, 16), part(DType::kQ6_K, 16)}, rows, {},
                       random),
          pool);
    check(make_problem({part(DType::kQ4_1, 20), part(DType::kQ4_1, 20), part(DType::kBF16, 3)}, rows,
                       {.bias = true}, random),
          pool);
    check(make_problem({part(DType::kF32, 16), part(DType::kQ8_0, 40)}, rows, {.norm = RowNorm::Kind::kRms},
                       random),
          pool);
    const Fusion gated{.name = "gated", .bias = true, .gated = true, .activation = Activation::kSilu};
    check(make_problem({part(DType::kQ4_K, 40), part(DType::kQ6_K, 40)}, rows, gated, random), pool);
    check(make_problem({part(DType::kQ4_K, 48), part(DType::kQ6_K, 16), part(DType::kQ6_K, 64)}, rows, gated,
                       random),
          pool);
  }
}

TEST(Linear, SplitsInputsThatDoNotFitTheCache) {
  std::mt19937 random(10);
  ThreadPool pool(2);
  check(make_problem({random_weight(DType::kQ4_0, 80, 4096, random)}, 300, {.norm = RowNorm::Kind::kRms},
                     random),
        pool);
}

TEST(Linear, ThreadsDoNotChangeTheResult) {
  std::mt19937 random(11);
  ThreadPool one(1), three(3);
  for (const int rows : {1, 6, 40, 520}) {
    const Problem p =
        make_problem({random_weight(DType::kQ4_1, 96, 576, random)}, rows,
                     {.norm = RowNorm::Kind::kRms, .gated = true, .activation = Activation::kSilu}, random);
    for (const Path& path : paths()) {
      if (!path.runs) continue;
      EXPECT_EQ(multiply(p, path.path, one), multiply(p, path.path, three)) << path.name << ", " << rows;
    }
  }
}

// A row alone and the same row among others: the same bits, whether VNNI or int8 tiles multiply it.
TEST(Linear, CompanyDoesNotChangeARow) {
  std::mt19937 random(15);
  ThreadPool pool(2);
  for (const DType type : test::kWeightTypes) {
    Problem p = make_problem({random_weight(type, 40, 512, random)}, 37,
                             {.norm = RowNorm::Kind::kRms, .activation = Activation::kSilu}, random);
    for (const Path& path : paths()) {
      if (!path.runs || path.tiles) continue;
      const std::vector<float> together = multiply(p, path.path, pool);
      Problem alone = p;
      alone.rows = 1;
      for (const std::size_t row : {std::size_t{0}, std::size_t{20}, std::size_t{36}}) {
        alone.x.assign(p.x.begin() + row * 512, p.x.begin() + (row + 1) * 512);
        alone.residual.resize(40);
        const std::vector<float> y = multiply(alone, path.path, pool);
        EXPECT_TRUE(std::equal(y.begin(), y.end(), together.begin() + row * 40))
            << path.name << ' ' << dtype_info(type).name;
      }
    }
  }
}

TEST(Linear, Int8TilesAgreeWithVnniToTheBit) {
  if (detect_isa().best < Isa::kAmx) GTEST_SKIP() << "no AMX";
  std::mt19937 random(16);
  ThreadPool pool(1);
  for (const DType type : test::kWeightTypes) {
    for (const int rows : {7, 9, 13, 16, 21}) {
      const Problem p = make_problem({random_weight(type, 24, 256, random)}, rows, {}, random);
      EXPECT_EQ(multiply(p, {linear_path(Isa::kAmx).dots, nullptr}, pool),
                multiply(p, linear_path(Isa::kAvx512), pool))
          << dtype_info(type).name << ", " << rows;
    }
  }
}

// What is fetched ahead is a hint: nothing depends on it, not even that it exists.
TEST(Linear, TheNextWeightChangesNothing) {
  std::mt19937 random(17);
  ThreadPool pool(2);
  for (const DType type : {DType::kQ4_1, DType::kQ8_0, DType::kBF16, DType::kF32}) {
    for (const int rows : {1, 4, 17}) {
      for (const bool gated : {false, true}) {
        const Problem p =
            make_problem({random_weight(type, 96, 576, random)}, rows, {.gated = gated}, random);
        for (const Path& path : paths()) {
          if (!path.runs) continue;
          const std::vector<float> expected = multiply(p, path.path, pool);
          for (const std::size_t bytes : {std::size_t{0}, std::size_t{70}, std::size_t{5} << 40}) {
            const NextWeight next{reinterpret_cast<const std::byte*>(std::uintptr_t{64}), bytes, rows == 4};
            EXPECT_EQ(multiply(p, path.path, pool, next), expected) << path.name;
          }
        }
      }
    }
  }
}

TEST(Linear, ZerosAndTinyInputsGiveZeros) {
  std::mt19937 random(14);
  ThreadPool pool(1);
  for (const float value : {0.0f, -0.0f, 1e-38f, 1e-45f}) {
    Problem p = make_problem({random_weight(DType::kQ4_1, 16, 64, random)}, 2, {}, random);
    std::ranges::fill(p.x, value);
    for (const Path& path : paths()) {
      if (!path.runs) continue;
      for (const float y : multiply(p, path.path, pool))
        ASSERT_LE(std::abs(y), 1e-30f) << path.name << ' ' << value;
    }
  }
}

// ---------------------------------------------------------------- refusals

TEST(CpuWeight, RefusesWhatItCannotPack) {
  ThreadPool pool(1);
  const std::vector<std::byte> bytes(4096);
  const auto refuse = [&](std::vector<RawWeight> parts, std::string_view message) {
    try {
      CpuWeight(pool, parts, WeightUse::kMatrix, nullptr);
      FAIL() << "accepted; expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
      EXPECT_NE(std::string_view(error.what()).find(message), std::string_view::npos) << error.what();
    }
  };
  const std::span<const std::byte> all(bytes);
  refuse({{"a", DType::kI8, 4, 32, all.first(128)}},
         "tensor 'a' (I8 [4, 32]) has a type that the CPU backend has no kernel for");
  refuse({{"a", DType::kQ4_0, 1, 33, all.first(18)}}, "no whole blocks of 32");
  refuse({{"a", DType::kF32, 2, 32, all.first(255)}}, "has 255 bytes instead of 256");
  refuse({{"a", DType::kF32, 0, 32, {}}}, "is empty");
  refuse({{"a", DType::kF32, 1, 32, all.first(128)}, {"b", DType::kF32, 1, 64, all.first(256)}},
         "tensor 'b' (F32 [1, 64]) is stacked with a tensor of 32 columns");
}

}  // namespace
}  // namespace mlxs::cpu
