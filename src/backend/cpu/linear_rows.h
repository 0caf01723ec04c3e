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

// Loads the row twice: once for the largest magnitude, once to write each block with write(codes,
// integers[32]).
template <class Write>
inline void quantize_row(const float* __restrict x, std::int64_t columns, const RowNorm& norm,
                         const QuantizedRows& out, int row, Write&& write) {
  const RowScale scale = measure_row(x, columns, norm);
  alignas(64) float values[kBlock];
  alignas(64) std::int32_t integers[kBlock];
  std::uint32_t bits[kFloats] = {};  // |x| as bits orders as |x| does, with infinity and NaN on top
  for (std::int64_t k = 0; k < columns; k += kBlock) {
    load_block(x, k, columns, norm, scale, values);
    for (int l = 0; l < kFloats; ++l) {
      const std::uint32_t low = __builtin_bit_cast(std::uint32_t, values[l]) & 0x7fffffffu;
      const std::uint32_t high = __builtin_bit_cast(std::uint32_t, values[kFloats + l]) & 0x7fffffffu;
      const std::uint32_t larger = low > high ? low : high;
      bits[l] = larger > bits[l] ? larger : bits[l];
    }
  }
  std::uint32_t largest = 0;
  for (int l = 0; l < kFloats; ++l) largest = bits[l] > largest ? bits[l] : largest;
  const auto peak = __builtin_bit_cast(float, largest);
  const bool finite = largest < 0x7f800000u;
  // Below 1e-30 nothing is left after any realistic weight, and the inverse would overflow.
  const float inverse = finite && peak > 1e-30f ? kLargestInteger / peak : 0.0f;
  out.scales[row] = finite ? (inverse > 0.0f ? peak / kLargestInteger : 0.0f) : __builtin_nanf("");

  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: the low mantissa bits become the rounded integer
  int index = 0;
  for (std::int64_t k = 0; k < columns; k += kBlock, ++index) {
    load_block(x, k, columns, norm, scale, values);
    if (!finite) std::memset(values, 0, sizeof(values));
    std::int32_t sums[2] = {0, 0};
    for (int i = 0; i < kBlock; ++i) {
      integers[i] = __builtin_bit_cast(std::int32_t, values[i] * inverse + kRound) -
                    __builtin_bit_cast(std::int32_t, kRound);
    }
    for (int l = 0; l < kFloats; ++l) {
      sums[0] += integers[l];
      sums[1] += integers[kFloats + l];
    }
    BlockSums& block = out.sum(row, index);
    block.integer_halves[0] = sums[0];
    block.integer_halves[1] = sums[1];
    block.integer_all = sums[0] + sums[1];
    block.halves[0] = static_cast<float>(sums[0]);
    block.halves[1] = static_cast<float>(sums[1]);
    block.all = static_cast<float>(sums[0] + sums[1]);
    write(out.block(row, index), integers);
  }
}

// ---------------------------------------------------------------- epilogue

// Sixteen floats as the compiler's own vectors: arithmetic and selection become vector code on every target.
using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
#define MLXS_INLINE \
  [[gnu::always_inline]] inline  // never a call: there is no ABI for these types without AVX-512

MLXS_INLINE void load_lanes(const float* from, int count, Floats& v) {  // missing ones become zeros
  if (count == kFloats) {
    std::memcpy(&v, from, sizeof(v));
  } else {
    v = Floats{};
    for (int l = 0; l < count; ++l) v[l] = from[l];
  }
}

// e^x to 2 ulp on [-87, 88], clamped outside; NaN stays NaN. Cephes' reduction and polynomial.
MLXS_INLINE void exp_lanes(Floats& v) {
  Floats x = v;
  x = x > 88.0f ? Floats{} + 88.0f : x;
  x = x < -87.0f ? Floats{} - 87.0f : x;
  const Floats shifted =
      x * 1.44269504f + 12582912.0f;  // 1.5 · 2^23: rounds to an integer in the low mantissa
  const Floats n = shifted - 12582912.0f;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints power = (__builtin_bit_cast(Ints, shifted) - 0x4b400000 + 127) << 23;
  v = p * __builtin_bit_cast(Floats, power);
}

MLXS_INLINE void tanh_lanes(Floats& v) {
  v *= 2.0f;
  exp_lanes(v);
  v = 1.0f - 2.0f / (1.0f + v);
}

// erf by Abramowitz and Stegun 7.1.26: 1.5e-7 absolute.
MLXS_INLINE void erf_lanes(Floats& v) {
  const Floats a = v < 0.0f ? -v : v;
  const Floats t = 1.0f / (1.0f + 0.3275911f * a);
  const Floats p =
      ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  Floats e = -a * a;
  exp_lanes(e);
  const Floats positive = 1.0f - p * e;
  v = v < 0.0f ? -positive : positive;
}

MLXS_INLINE void activate(Activation activation, Floats& v) {
  Floats t;
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kSilu:
      t = -v;
      exp_lanes(t);
      v = v / (1.0f + t);
      return;
    case Activation::kGeluTanh:
      t = 0.7978845608f * (v + 0.044715f * v * v * v);
      tanh_lanes(t);
      v = 0.5f * v * (1.0f + t);
      return;
    case Activation::kGelu:
      t = 0.7071067812f * v;
      erf_lanes(t);
      v = 0.5f * v * (1.0f + t);
      return;
    case Activation::kSwigluClamped:  // needs both factors: gate()
      return;
  }
}

// v = act(v) · factor.
MLXS_INLINE void gate(Activation activation, Floats& v, const Floats& factor) {
  if (activation != Activation::kSwigluClamped) {
    activate(activation, v);
    v *= factor;
    return;
  }
  Floats up = factor;
  v = v > 7.0f ? Floats{} + 7.0f : v;  // NaN stays
  up = up > 7.0f ? Floats{} + 7.0f : up;
  up = up < -7.0f ? Floats{} - 7.0f : up;
  Floats t = -1.702f * v;
  exp_lanes(t);
  v = v / (1.0f + t) * (up + 1.0f);
}

// The epilogue with its choices made at compile time. kWhole: all 16 lanes are columns of y.
template <bool kWhole, bool kGated, Activation kActivation, bool kResidual>
void finish_rows(const Epilogue& e, const PanelSums& p) {
  const int count = kWhole ? kFloats : p.count;
  Floats bias{}, up_bias{};
  if (e.bias != nullptr) load_lanes(e.bias + p.column, count, bias);
  if (e.up_bias != nullptr) load_lanes(e.up_bias + p.column, count, up_bias);
  const float *sums = p.sums, *up = p.up;
  float* y = e.y + static_cast<std::size_t>(p.first_row) * e.y_stride + p.column;
  const float* residual = nullptr;
  if constexpr (kResidual) {
    residual = e.residual + static_cast<std::size_t>(p.first_row) * e.residual_stride + p.column;
  }
  for (int row = 0; row < p.rows; ++row, sums += p.stride, y += e.y_stride) {
    Floats v, other;
    load_lanes(sums, kFloats, v);
    v += bias;
    if constexpr (kGated) {
      load_lanes(up, kFloats, other);
      gate(kActivation, v, other + up_bias);
      up += p.stride;
    } else {
      activate(kActivation, v);
    }
    if (e.soft_cap > 0.0f) {
      v /= e.soft_cap;
      tanh_lanes(v);
      v *= e.soft_cap;
    }
    if constexpr (kResidual) {
      load_lanes(residual, count, other);
      v += other;
      residual += e.residual_stride;
    }
    if constexpr (kWhole) {
      std::memcpy(y, &v, sizeof(v));
    } else {
      for (int l = 0; l < count; ++l) y[l] = v[l];
    }
  }
}

template <bool kGated, Activation kActivation>
void finish_activated(const Epilogue& e, const PanelSums& p) {
  if (p.count < kFloats) {
    if (e.residual != nullptr) return finish_rows<false, kGated, kActivation, true>(e, p);
    return finish_rows<false, kGated, kActivation, false>(e, p);
  }
  if (e.residual != nullptr) return finish_rows<true, kGated, kActivation, true>(e, p);
  finish_rows<true, kGated, kActivation, false>(e, p);
}

template <bool kGated>
void finish_gated(const Epilogue& e, const PanelSums& p) {
  switch (e.activation) {
    case Activation::kNone:
      return finish_activated<kGated, Activation::kNone>(e, p);
    case Activation::kSilu:
      return finish_activated<kGated, Activation::kSilu>(e, p);
    case Activation::kGeluTanh:
      return finish_activated<kGated, Activation::kGeluTanh>(e, p);
    case Activation::kGelu:
      return finish_activated<kGated, Activation::kGelu>(e, p);
    case Activation::kSwigluClamped:
      return finish_activated<kGated, Activation::kSwigluClamped>(e, p);
  }
}

inline void finish_panel(const Epilogue& e, const PanelSums& p) {
  p.up != nullptr ? finish_gated<true>(e, p) : finish_gated<false>(e, p);
}

}  // namespace
}  // namespace mlxs::cpu
