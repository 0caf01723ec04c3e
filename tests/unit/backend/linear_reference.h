// linear() beside its definition in f64, on every path of this machine, for tests of shapes, storage types
// and fusions.
//
// The bound of one output. Let S = Σ |w·x| and A = Σ (|scale·code| + |min|)·|x| over its inputs, u = 2^-24.
// - sums in f32, in any order: 2·K·u·A. Min and zero point are added apart, so A and not S.
// - scales of K types, multiplied out to f16: 2^-11·A.
// - activations as 15-bit integers (AVX2, AVX-512, AMX of few rows): Σ|w|·peak/65024, peak the largest |x|.
// - tiles (AMX of many rows), w and x rounded to bf16: (2^-7 + 2^-16)·S, and 2^-17·A for rounding by
// addition.
// - norm in f32: 2^-20·S; layer norm: of the row's largest |x| instead of |x|.
// Activations and gates are Lipschitz with 1.13: an error e becomes at most 1.13·e, and e_g·|u| + |a(g)|·e_u
// + e_g·e_u.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "backend/cpu/linear.h"
#include "random_weights.h"

namespace mlxs::cpu::test {

inline constexpr double kUnit = 0x1p-24;

struct Path {
  const char* name;
  LinearPath path;
  bool runs, integers, tiles;
};

inline std::vector<Path> paths() {
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

inline Problem make_problem(std::vector<RandomWeight> parts, int rows, const Fusion& fusion,
                            std::mt19937& random) {
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

inline double activate(Activation activation, double x) {
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

inline std::vector<double> normalized(const Problem& p, int row) {
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

inline Reference solve(const Problem& p) {
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
    for (std::int64_t r = 0; r < part.rows; ++r, ++output) {
      part.read_row(r, w.data());
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

inline std::unique_ptr<CpuWeight> pack(ThreadPool& pool, const Problem& p) {
  std::vector<RawWeight> raw;
  for (const RandomWeight& part : p.parts) raw.push_back(part.raw());
  return std::make_unique<CpuWeight>(pool, raw, WeightUse::kMatrix, nullptr);
}

inline std::vector<float> multiply(const Problem& p, const LinearPath& path, ThreadPool& pool,
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

inline void check(const Problem& p, ThreadPool& pool) {
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

}  // namespace mlxs::cpu::test
