// Every path of linear() against f64, for every storage type, row counts around each kernel's limits and
// every fusion.
//
// The bound. Let S = Σ |w·x| and A = Σ (|scale·code| + |min|)·|x|, both over the inputs of one output, u =
// 2^-24.
//   sums in f32, any order                       2·K·u·A   (min and zero point are added apart, so A and not
//   S) scales of K types, multiplied out to f16     2^-11·A activations as 15-bit integers               Σ
//   |w|·peak/65024, peak = largest |x| of the block tiles: w and x rounded to bf16               (2^-8 +
//   2^-16)·S, and 2^-9·2^-8·A for the rounding by addition norm in f32 2^-20·S, layer norm: of the row's
//   largest |x| instead of |x|
// Activations and gates are Lipschitz with 1.13, so an error e becomes at most 1.13·e, and e_g·|u| +
// |a(g)|·e_u + e_g·e_u.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/linear.h"
#include "mlxs/error.h"
#include "random_weights.h"

namespace mlxs::cpu {
namespace {

using test::random_weight;
using test::RandomWeight;

constexpr double kUnit = 0x1p-24;

struct Path {
  const char* name;
  LinearPath path;
  bool runs, integers, tiles;
};

std::vector<Path> paths() {
  std::vector<Path> all{{"portable", linear_path(Isa::kPortable), true, false, false}};
#if defined(__x86_64__)
  const Isa best = detect_isa().best;
  all.push_back({"avx2", linear_path(Isa::kAvx2), best >= Isa::kAvx2, true, false});
  all.push_back({"avx512", linear_path(Isa::kAvx512), best >= Isa::kAvx512, true, false});
  LinearPath amx = linear_path(Isa::kAmx);
  all.push_back({"amx dots", {amx.dots, nullptr}, best >= Isa::kAmx, true, false});
  amx.tile_rows = 1;
  all.push_back({"amx tiles", amx, best >= Isa::kAmx, false, true});
#endif
  return all;
}

struct Fusion {
  const char* name = "plain";
  RowNorm::Kind norm = RowNorm::Kind::kNone;
  bool unit_offset = false;
  bool bias = false, gated = false, residual = false;
  Activation activation = Activation::kNone;
  float soft_cap = 0.0f;
};

struct Problem {
  std::vector<RandomWeight> parts;
  int rows;
  Fusion fusion;
  std::vector<float> x, gain, norm_bias, bias, residual;

  std::int64_t columns() const { return parts.front().columns; }
  std::int64_t outputs() const {
    std::int64_t total = 0;
    for (const RandomWeight& part : parts) total += part.rows;
    return total;
  }
  std::int64_t y_columns() const { return fusion.gated ? outputs() / 2 : outputs(); }
};

Problem make_problem(std::vector<RandomWeight> parts, int rows, const Fusion& fusion, std::mt19937& random) {
  Problem p{.parts = std::move(parts), .rows = rows, .fusion = fusion};
  std::normal_distribution<float> normal;
  const auto fill = [&](std::vector<float>& values, std::int64_t count, float scale, float offset) {
    values.resize(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random) * scale + offset;
  };
  fill(p.x, rows * p.columns(), 1.0f, 0.1f);
  for (float& value : p.x) {
    if (random() % 97 == 0) value *= 30.0f;  // outliers, as real activations have
  }
  fill(p.gain, p.columns(), 0.2f, 1.0f);
  fill(p.norm_bias, p.columns(), 0.2f, 0.0f);
  fill(p.bias, p.outputs(), 1.0f, 0.0f);
  fill(p.residual, rows * p.y_columns(), 1.0f, 0.0f);
  return p;
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
    case Activation::kSwigluClamped:  // of two factors: tests/parity/families
      return x;
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
  }
  return x;
}

struct Reference {
  std::vector<double> y, integer_bound, tile_bound, float_bound;
};

std::vector<double> normalized(const Problem& p, int row) {
  const auto columns = static_cast<std::size_t>(p.columns());
  const float* x = p.x.data() + static_cast<std::size_t>(row) * columns;
  std::vector<double> out(x, x + columns);
  if (p.fusion.norm == RowNorm::Kind::kNone) return out;
  double mean = 0.0, squares = 0.0;
  if (p.fusion.norm == RowNorm::Kind::kLayer) {
    for (double value : out) mean += value / static_cast<double>(columns);
  }
  for (double value : out) squares += (value - mean) * (value - mean) / static_cast<double>(columns);
  for (std::size_t k = 0; k < columns; ++k) {
    out[k] = (out[k] - mean) / std::sqrt(squares + 1e-5f) *
             (static_cast<double>(p.gain[k]) + (p.fusion.unit_offset ? 1.0 : 0.0));
    if (p.fusion.norm == RowNorm::Kind::kLayer) out[k] += p.norm_bias[k];
  }
  return out;
}

Reference solve(const Problem& p) {
  const auto columns = static_cast<std::size_t>(p.columns());
  const auto outputs = static_cast<std::size_t>(p.outputs());
  struct Sum {
    double value = 0, s = 0, a = 0, quantized = 0;
    double rounding = 0;
  };
  std::vector<Sum> sums(outputs * static_cast<std::size_t>(p.rows));
  std::vector<float> w(columns);
  std::vector<std::vector<double>> x;
  for (int row = 0; row < p.rows; ++row) x.push_back(normalized(p, row));
  std::vector<double> slack(static_cast<std::size_t>(p.rows));  // of the norm, relative to each x
  std::size_t output = 0;
  for (const RandomWeight& part : p.parts) {
    const bool k_type = dtype_info(part.type).block_elements == 256;
    const std::size_t stride = row_bytes(part.type, part.columns);
    for (std::int64_t r = 0; r < part.rows; ++r, ++output) {
      dequantize_row(part.type, part.bytes.data() + static_cast<std::size_t>(r) * stride, part.columns,
                     w.data());
      for (std::size_t row = 0; row < x.size(); ++row) {
        Sum& sum = sums[row * outputs + output];
        double largest = 0;
        for (double value : x[row]) largest = std::max(largest, std::abs(value));
        double weights = 0;
        for (std::size_t k = 0; k < columns; ++k) {
          const double product = static_cast<double>(w[k]) * x[row][k];
          sum.value += product;
          sum.s += std::abs(product);
          sum.a += part.largest * std::abs(x[row][k]);
          weights += std::abs(static_cast<double>(w[k]));
        }
        sum.quantized = weights * largest / 65024.0 * 1.001;
        if (p.fusion.norm == RowNorm::Kind::kLayer) sum.rounding += 0x1p-20 * largest * weights;
        sum.rounding += 2.0 * static_cast<double>(columns) * kUnit * sum.a + (k_type ? 0x1p-11 * sum.a : 0.0);
        if (p.fusion.norm != RowNorm::Kind::kNone) sum.rounding += 0x1p-20 * sum.s;
      }
    }
  }
  Reference result;
  const auto y_columns = static_cast<std::size_t>(p.y_columns());
  for (std::size_t row = 0; row < x.size(); ++row) {
    for (std::size_t i = 0; i < y_columns; ++i) {
      const Sum& sum = sums[row * outputs + i];
      const Sum& up = sums[row * outputs + (p.fusion.gated ? y_columns + i : i)];
      const double g = sum.value + (p.fusion.bias ? p.bias[i] : 0.0);
      const double u = up.value + (p.fusion.bias && p.fusion.gated ? p.bias[y_columns + i] : 0.0);
      const double a = activate(p.fusion.activation, g);
      double y = p.fusion.gated ? a * u : a;
      if (p.fusion.soft_cap > 0) y = p.fusion.soft_cap * std::tanh(y / p.fusion.soft_cap);
      if (p.fusion.residual) y += p.residual[row * y_columns + i];
      result.y.push_back(y);
      const auto bound = [&](double eg, double eu) {
        const double gate = 1.13 * eg + 0x1p-20 * (std::abs(a) + 1e-3);
        const double error = p.fusion.gated ? gate * std::abs(u) + std::abs(a) * eu + gate * eu : gate;
        return error + 0x1p-20 * (std::abs(y) + 1.0 + p.fusion.soft_cap);
      };
      const auto tile = [](const Sum& z) { return z.rounding + (0x1p-7 + 0x1p-16) * z.s + 0x1p-17 * z.a; };
      result.float_bound.push_back(bound(sum.rounding, up.rounding));
      result.integer_bound.push_back(bound(sum.rounding + sum.quantized, up.rounding + up.quantized));
      result.tile_bound.push_back(bound(tile(sum), tile(up)));
    }
  }
  return result;
}

std::unique_ptr<CpuWeight> pack(ThreadPool& pool, const Problem& p) {
  std::vector<RawWeight> raw;
  for (const RandomWeight& part : p.parts) raw.push_back(part.raw());
  return std::make_unique<CpuWeight>(pool, raw, WeightUse::kMatrix, nullptr);
}

std::vector<float> multiply(const Problem& p, const LinearPath& path, ThreadPool& pool,
                            const NextWeight& next = {}) {
  const std::unique_ptr<CpuWeight> weight = pack(pool, p);
  StepArena arena;
  const auto y_columns = static_cast<std::size_t>(p.y_columns());
  std::vector<float> y = p.residual;  // in place, as the backend does it
  if (!p.fusion.residual) std::ranges::fill(y, std::numeric_limits<float>::quiet_NaN());
  LinearInput in{
      .x = p.x.data(), .stride = static_cast<std::size_t>(p.columns()), .rows = p.rows, .norm = {}};
  if (p.fusion.norm != RowNorm::Kind::kNone) {
    in.norm = {.kind = p.fusion.norm,
               .gain = p.gain.data(),
               .bias = p.fusion.norm == RowNorm::Kind::kLayer ? p.norm_bias.data() : nullptr,
               .epsilon = 1e-5f,
               .unit_offset = p.fusion.unit_offset};
  }
  linear(pool, path, arena, *weight, in,
         {.y = y.data(),
          .stride = y_columns,
          .bias = p.fusion.bias ? p.bias.data() : nullptr,
          .residual = p.fusion.residual ? y.data() : nullptr,
          .residual_stride = y_columns,
          .activation = p.fusion.activation,
          .gated = p.fusion.gated,
          .soft_cap = p.fusion.soft_cap},
         next);
  return y;
}

void check(const Problem& p, ThreadPool& pool) {
  const Reference reference = solve(p);
  for (const Path& path : paths()) {
    if (!path.runs) continue;
    const std::vector<float> y = multiply(p, path.path, pool);
    // Dense floats are multiplied as floats where there are no tiles, and f32 weights always.
    const bool all_f32 =
        std::ranges::all_of(p.parts, [](const auto& part) { return part.type == DType::kF32; });
    const bool any_f32 =
        std::ranges::any_of(p.parts, [](const auto& part) { return part.type == DType::kF32; });
    const std::vector<double>& bound = path.tiles && !any_f32                      ? reference.tile_bound
                                       : (path.integers || path.tiles) && !all_f32 ? reference.integer_bound
                                                                                   : reference.float_bound;
    double worst = 0;
    std::size_t at = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double error = std::abs(static_cast<double>(y[i]) - reference.y[i]) / bound[i];
      if (!(error <= worst)) {
        worst = error;
        at = i;
        if (std::isnan(error)) break;
      }
    }
    EXPECT_LE(worst, 1.0) << path.name << ", " << p.fusion.name << ": " << dtype_info(p.parts[0].type).name
                          << " [" << p.outputs() << ", " << p.columns() << "] × " << p.rows << " rows: y["
                          << at << "] = " << y[at] << ", not " << reference.y[at] << " ± " << bound[at];
    EXPECT_FALSE(std::isnan(worst)) << path.name;
  }
}

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

// ---------------------------------------------------------------- values that are no numbers

TEST(Linear, NanAndInfinityStayInTheirRow) {
  std::mt19937 random(12);
  ThreadPool pool(2);
  for (const DType type : test::kWeightTypes) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      for (const RowNorm::Kind norm : {RowNorm::Kind::kNone, RowNorm::Kind::kRms}) {
        Problem p = make_problem({random_weight(type, 32, 256, random)}, 18, {.norm = norm}, random);
        for (const std::size_t row : {std::size_t{3}, std::size_t{17}}) p.x[row * 256 + 77] = bad;
        for (const Path& path : paths()) {
          if (!path.runs) continue;
          const std::vector<float> y = multiply(p, path.path, pool);
          for (std::size_t i = 0; i < y.size(); ++i) {
            const bool expected = i / 32 != 3 && i / 32 != 17;
            ASSERT_EQ(std::isfinite(y[i]), expected)
                << path.name << ' ' << dtype_info(type).name << ' ' << bad << ' ' << i;
          }
        }
      }
    }
  }
}

TEST(Linear, NanWeightsReachTheirOutputOnly) {
  std::mt19937 random(13);
  ThreadPool pool(2);
  // Every NaN pattern that rounding by addition could turn into a number: quiet, signalling, all ones.
  for (const std::uint16_t nan :
       {std::uint16_t{0x7e00}, std::uint16_t{0x7c01}, std::uint16_t{0x7fff}, std::uint16_t{0xffff}}) {
    for (const DType type :
         {DType::kF16, DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
      for (const int rows : {1, 20}) {
        RandomWeight w = random_weight(type, 32, 256, random);
        const int field = type == DType::kF16 ? 0 : test::scale_fields(type).scale;
        std::memcpy(w.bytes.data() + 5 * row_bytes(type, 256) + static_cast<std::size_t>(field), &nan, 2);
        const Problem p = make_problem({w}, rows, {}, random);
        for (const Path& path : paths()) {
          if (!path.runs) continue;
          const std::vector<float> y = multiply(p, path.path, pool);
          for (std::size_t i = 0; i < y.size(); ++i) {
            ASSERT_EQ(std::isnan(y[i]), i % 32 == 5)
                << path.name << ' ' << dtype_info(type).name << ' ' << nan << ' ' << i;
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
