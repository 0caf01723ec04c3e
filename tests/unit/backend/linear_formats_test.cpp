// linear() of weights whose scales lie beside them (MLX's widths and groups, FP8) on every path, and values
// that are no numbers in every storage type. The bounds: linear_reference.h. Scales here are exact in what
// they are packed to, f16 (MLX) or, with the codes, bf16 (FP8); others are rounded to that: 2^-11 and 2^-9 of
// a weight more.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "linear_reference.h"
#include "weight_forms.h"

namespace mlxs::cpu {
namespace {

using test::all_forms;
using test::check;
using test::Form;
using test::make_problem;
using test::multiply;
using test::Path;
using test::paths;
using test::Problem;
using test::random_affine;
using test::random_fp8;
using test::random_weight;
using test::RandomWeight;
using test::scaled_forms;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class ScaledForms : public testing::TestWithParam<Form> {};

TEST_P(ScaledForms, EveryPathAndRowCount) {
  std::mt19937 random(21);
  ThreadPool pool(2);
  const std::int64_t block = GetParam().block;
  // One group, an odd number of them, and more than a kernel's stretch; FP8 also where no block is whole.
  const std::vector<std::int64_t> inputs = block == 1
                                               ? std::vector<std::int64_t>{40, 300, 576}
                                               : std::vector{block, 3 * block, 640 / block * block + block};
  constexpr std::int64_t kOutputs[] = {16, 40, 7, 33};
  std::size_t next = 0;
  for (const int rows : {1, 2, 4, 8, 15, 16, 17, 33, 63, 65}) {
    for (int i = 0; i < 2; ++i, ++next) {
      check(make_problem({GetParam().make(kOutputs[next % 4], inputs[next % 3], random)}, rows,
                         {.bias = i == 1}, random),
            pool);
    }
  }
}

TEST_P(ScaledForms, NormGateAndResidual) {
  std::mt19937 random(22);
  ThreadPool pool(2);
  for (const int rows : {1, 17}) {
    check(make_problem({GetParam().make(48, 384, random), GetParam().make(48, 384, random)}, rows,
                       {.name = "gated",
                        .norm = RowNorm::Kind::kRms,
                        .gated = true,
                        .residual = true,
                        .activation = Activation::kSilu},
                       random),
          pool);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ScaledForms, testing::ValuesIn(scaled_forms()),
                         [](const auto& form) { return form.param.name; });

// ---------------------------------------------------------------- values that are no numbers

TEST(NoNumbers, InARowStayInItsOutputs) {
  std::mt19937 random(12);
  ThreadPool pool(2);
  for (const Form& form : all_forms()) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      for (const RowNorm::Kind norm : {RowNorm::Kind::kNone, RowNorm::Kind::kRms}) {
        Problem p = make_problem({form.make(32, 256, random)}, 18, {.norm = norm}, random);
        for (const std::size_t row : {std::size_t{3}, std::size_t{17}}) p.x[row * 256 + 77] = bad;
        for (const Path& path : paths()) {
          if (!path.runs) continue;
          const std::vector<float> y = multiply(p, path.path, pool);
          for (std::size_t i = 0; i < y.size(); ++i) {
            const bool expected = i / 32 != 3 && i / 32 != 17;
            ASSERT_EQ(std::isfinite(y[i]), expected)
                << path.name << ' ' << form.name << ' ' << bad << ' ' << i;
          }
        }
      }
    }
  }
}

// A weight of row 5 is none: its output is none in every row, and nobody else's.
void expect_only_output_5(const Problem& p, ThreadPool& pool, bool nan, const std::string& what) {
  for (const Path& path : paths()) {
    if (!path.runs) continue;
    const std::vector<float> y = multiply(p, path.path, pool);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const bool hit = nan ? std::isnan(y[i]) : !std::isfinite(y[i]);
      ASSERT_EQ(hit, i % 32 == 5) << path.name << ' ' << what << ' ' << i << ": " << y[i];
    }
  }
}

TEST(NoNumbers, InAWeightReachItsOutputOnly) {
  std::mt19937 random(13);
  ThreadPool pool(2);
  // Every NaN pattern that rounding by addition could turn into a number: quiet, signalling, all ones; and
  // infinity.
  constexpr std::uint16_t kBad[] = {0x7e00, 0x7c01, 0x7fff, 0xffff, 0x7c00, 0xfc00};
  for (const std::uint16_t bad : kBad) {
    for (const DType type : test::kWeightTypes) {
      const test::ScaleFields fields = test::scale_fields(type);
      for (const int field : {type == DType::kF16 ? 0 : fields.scale, fields.min}) {
        if (field < 0) continue;
        for (const int rows : {1, 20}) {
          RandomWeight w = random_weight(type, 32, 256, random);
          std::memcpy(w.bytes.data() + 5 * row_bytes(type, 256) + static_cast<std::size_t>(field), &bad, 2);
          expect_only_output_5(make_problem({w}, rows, {}, random), pool, (bad & 0x3ff) != 0,
                               std::string(dtype_info(type).name) + " field " + std::to_string(field));
        }
      }
    }
  }
}

TEST(NoNumbers, InFloatWeightsReachTheirOutputOnly) {
  std::mt19937 random(18);
  ThreadPool pool(2);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      for (const int rows : {1, 20}) {
        RandomWeight w = random_weight(type, 32, 256, random);
        const std::vector<std::byte> stored = test::stored_floats(type, {bad});
        std::copy(stored.begin(), stored.end(),
                  w.bytes.begin() + static_cast<std::ptrdiff_t>((5 * 256 + 9) * stored.size()));
        expect_only_output_5(make_problem({w}, rows, {}, random), pool, std::isnan(bad),
                             std::string(dtype_info(type).name));
      }
    }
  }
}

TEST(NoNumbers, InScalesBesideAWeightReachItsOutputOnly) {
  std::mt19937 random(19);
  ThreadPool pool(2);
  for (const test::MlxWidth& width : test::kMlxWidths) {
    for (const DType scale : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const float bad : {kNan, kInfinity, -kInfinity}) {
        for (const bool in_bias : {false, true}) {
          for (const int rows : {1, 20}) {
            RandomWeight w = random_affine(width, 64, scale, 32, 256, random);
            const std::vector<std::byte> stored = test::stored_floats(scale, {bad});
            std::vector<std::byte>& field = in_bias ? w.biases : w.scales;
            std::copy(stored.begin(), stored.end(),
                      field.begin() + static_cast<std::ptrdiff_t>(5 * 4 * stored.size()));
            expect_only_output_5(make_problem({w}, rows, {}, random), pool, std::isnan(bad),
                                 std::to_string(width.bits) + (in_bias ? " bits, bias" : " bits, scale"));
          }
        }
      }
    }
  }
  for (const int rows : {1, 20}) {
    RandomWeight w = random_fp8(32, 256, random);
    w.bytes[5 * 256 + 9] = std::byte{0x7f};
    expect_only_output_5(make_problem({w}, rows, {}, random), pool, true, "fp8");
  }
}

}  // namespace
}  // namespace mlxs::cpu
