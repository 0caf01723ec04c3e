// Norm prologue, activation quantization and epilogue, written plainly: each ISA file includes this and its
// compiler vectorizes it. Everything is in an unnamed namespace on purpose: code compiled for one ISA must
// not be merged with another's.
#pragma once

#include <cstring>

#include "backend/cpu/linear_kernels.h"

namespace mlxs::cpu {
namespace {

constexpr int kFloats = 16;  // lanes of the plain loops

// ---------------------------------------------------------------- norm

struct RowScale {
  float mean = 0.0f, inverse = 1.0f;
};

inline float add_up(const float* lanes) {
  float total = 0.0f;
  for (int l = 0; l < kFloats; ++l) total += lanes[l];
  return total;
}

// Σ (x - mean)², in sixteen partial sums.
inline float squares(const float* __restrict x, std::int64_t columns, float mean) {
  float lanes[kFloats] = {};
  std::int64_t i = 0;
  for (; i + kFloats <= columns; i += kFloats) {
    for (int l = 0; l < kFloats; ++l) {
      const float d = x[i + l] - mean;
      lanes[l] += d * d;
    }
  }
  for (int l = 0; i < columns; ++i, ++l) lanes[l] += (x[i] - mean) * (x[i] - mean);
  return add_up(lanes);
}

inline RowScale measure_row(const float* __restrict x, std::int64_t columns, const RowNorm& norm) {
  RowScale scale;
  if (norm.kind == RowNorm::Kind::kNone) return scale;
  const auto count = static_cast<float>(columns);
  if (norm.kind == RowNorm::Kind::kLayer) {
    float lanes[kFloats] = {};
    std::int64_t i = 0;
    for (; i + kFloats <= columns; i += kFloats) {
      for (int l = 0; l < kFloats; ++l) lanes[l] += x[i + l];
    }
    for (int l = 0; i < columns; ++i, ++l) lanes[l] += x[i];
    scale.mean = add_up(lanes) / count;
  }
  scale.inverse = 1.0f / __builtin_sqrtf(squares(x, columns, scale.mean) / count + norm.epsilon);
  return scale;
}

// Inputs k … k+31 of a row after the norm; zeros past the end.
inline void load_block(const float* __restrict x, std::int64_t k, std::int64_t columns, const RowNorm& norm,
                       const RowScale& scale, float* __restrict out) {
  const std::int64_t left = columns - k;
  if (left < kBlock) {
    for (std::int64_t i = 0; i < kBlock; ++i) out[i] = 0.0f;
    for (std::int64_t i = 0; i < left; ++i) {
      float value = x[k + i];
      if (norm.kind != RowNorm::Kind::kNone) {
        value = (value - scale.mean) * scale.inverse;
        if (norm.gain != nullptr) value *= norm.gain[k + i] + (norm.unit_offset ? 1.0f : 0.0f);
        if (norm.bias != nullptr) value += norm.bias[k + i];
      }
      out[i] = value;
    }
    return;
  }
  if (norm.kind == RowNorm::Kind::kNone) {
    std::memcpy(out, x + k, kBlock * sizeof(float));
    return;
  }
  for (int i = 0; i < kBlock; ++i) out[i] = (x[k + i] - scale.mean) * scale.inverse;
  if (norm.gain != nullptr) {
    const float offset = norm.unit_offset ? 1.0f : 0.0f;
    for (int i = 0; i < kBlock; ++i) out[i] *= norm.gain[k + i] + offset;
  }
  if (norm.bias != nullptr) {
    for (int i = 0; i < kBlock; ++i) out[i] += norm.bias[k + i];
  }
}

inline void normalize_row(const float* x, std::int64_t columns, const RowNorm& norm, float* out,
                          std::int64_t out_columns) {
  const RowScale scale = measure_row(x, columns, norm);
  alignas(64) float block[kBlock];
  for (std::int64_t k = 0; k < out_columns; k += kBlock) {  // through a block, so that out may be x
    load_block(x, k, columns, norm, scale, block);
    const std::int64_t left = out_columns - k;
    std::memcpy(out + k, block, static_cast<std::size_t>(left < kBlock ? left : kBlock) * sizeof(float));
  }
}

// ---------------------------------------------------------------- activations as integers

constexpr float kLargestInteger = 32512.0f;  // 127 · 256: the high byte stays in int8 after rounding

// values → integers and the fields that do not depend on how the ISA wants the codes.
inline void quantize_block(const float* __restrict values, std::int32_t* __restrict integers,
                           QuantizedBlock& out) {
  std::uint32_t bits[kFloats] = {};  // |x| as bits orders as |x| does, with infinity and NaN on top
  for (int half = 0; half < 2; ++half) {
    for (int l = 0; l < kFloats; ++l) {
      const std::uint32_t magnitude =
          __builtin_bit_cast(std::uint32_t, values[half * kFloats + l]) & 0x7fffffffu;
      bits[l] = magnitude > bits[l] ? magnitude : bits[l];
    }
  }
  std::uint32_t largest = 0;
  for (int l = 0; l < kFloats; ++l) largest = bits[l] > largest ? bits[l] : largest;
  const auto peak = __builtin_bit_cast(float, largest);
  // Below 1e-30 nothing is left after any realistic weight, and the inverse would overflow.
  const float inverse = largest < 0x7f800000u && peak > 1e-30f ? kLargestInteger / peak : 0.0f;
  const float scale =
      largest >= 0x7f800000u ? __builtin_nanf("") : (inverse > 0.0f ? peak / kLargestInteger : 0.0f);
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: the low mantissa bits become the rounded integer
  for (int i = 0; i < kBlock; ++i) {
    integers[i] = __builtin_bit_cast(std::int32_t, values[i] * inverse + kRound) -
                  __builtin_bit_cast(std::int32_t, kRound);
  }
  if (largest >= 0x7f800000u) std::memset(integers, 0, kBlock * sizeof(std::int32_t));
  std::int32_t sums[2] = {0, 0};
  for (int l = 0; l < kFloats; ++l) {
    sums[0] += integers[l];
    sums[1] += integers[kFloats + l];
  }
  out.scale = scale;
  out.integer_sums[0] = sums[0];
  out.integer_sums[1] = sums[1];
  out.integer_sum = sums[0] + sums[1];
  out.sums[0] = scale * static_cast<float>(sums[0]);
  out.sums[1] = scale * static_cast<float>(sums[1]);
  out.sum = scale * static_cast<float>(sums[0] + sums[1]);
  out.unused = 0;
}

// ---------------------------------------------------------------- epilogue

// e^x to 2 ulp on [-87, 88], clamped outside; NaN stays NaN. Cephes' reduction and polynomial.
inline float exp_lane(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 12582912.0f;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::uint32_t power =
      (__builtin_bit_cast(std::uint32_t, shifted) - __builtin_bit_cast(std::uint32_t, kRound) + 127u) << 23;
  return p * __builtin_bit_cast(float, power);
}

inline float tanh_lane(float x) { return 1.0f - 2.0f / (1.0f + exp_lane(2.0f * x)); }

// erf by Abramowitz and Stegun 7.1.26: 1.5e-7 absolute.
inline float erf_lane(float x) {
  const float a = __builtin_fabsf(x);
  const float t = 1.0f / (1.0f + 0.3275911f * a);
  const float p =
      ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  return __builtin_copysignf(1.0f - p * exp_lane(-a * a), x);
}

inline void activate(Activation activation, float* __restrict v) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kSilu:
      for (int l = 0; l < kFloats; ++l) v[l] = v[l] / (1.0f + exp_lane(-v[l]));
      return;
    case Activation::kGeluTanh:
      for (int l = 0; l < kFloats; ++l) {
        v[l] = 0.5f * v[l] * (1.0f + tanh_lane(0.7978845608f * (v[l] + 0.044715f * v[l] * v[l] * v[l])));
      }
      return;
    case Activation::kGelu:
      for (int l = 0; l < kFloats; ++l) v[l] = 0.5f * v[l] * (1.0f + erf_lane(0.7071067812f * v[l]));
      return;
  }
}

// Reads `count` of 16 floats; the rest become zeros.
inline void load_lanes(const float* from, int count, float* __restrict v) {
  if (count == kFloats) {
    std::memcpy(v, from, kFloats * sizeof(float));
  } else {
    for (int l = 0; l < kFloats; ++l) v[l] = l < count ? from[l] : 0.0f;
  }
}

inline void finish_panel(const Epilogue& e, const PanelSums& p) {
  alignas(64) float bias[kFloats] = {}, up_bias[kFloats] = {}, v[kFloats], other[kFloats];
  if (e.bias != nullptr) load_lanes(e.bias + p.column, p.count, bias);
  if (e.up_bias != nullptr) load_lanes(e.up_bias + p.column, p.count, up_bias);
  for (int row = 0; row < p.rows; ++row) {
    const std::size_t at = static_cast<std::size_t>(row) * p.stride;
    const auto y_row = static_cast<std::size_t>(p.first_row + row);
    for (int l = 0; l < kFloats; ++l) v[l] = p.sums[at + l] + bias[l];
    activate(e.activation, v);
    if (p.up != nullptr) {
      for (int l = 0; l < kFloats; ++l) v[l] *= p.up[at + l] + up_bias[l];
    }
    if (e.soft_cap > 0.0f) {
      for (int l = 0; l < kFloats; ++l) v[l] = e.soft_cap * tanh_lane(v[l] / e.soft_cap);
    }
    if (e.residual != nullptr) {
      load_lanes(e.residual + y_row * e.residual_stride + p.column, p.count, other);
      for (int l = 0; l < kFloats; ++l) v[l] += other[l];
    }
    float* y = e.y + y_row * e.y_stride + p.column;
    if (p.count == kFloats) {
      std::memcpy(y, v, sizeof(v));
    } else {
      for (int l = 0; l < p.count; ++l) y[l] = v[l];
    }
  }
}

}  // namespace
}  // namespace mlxs::cpu
