// Vectors of four floats that any compiler maps to SSE2 or NEON.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxs::cpu {
namespace {

struct Float4 {
  typedef float F __attribute__((vector_size(16)));
  typedef std::int32_t I __attribute__((vector_size(16)));
  struct Pair {
    F even, odd;
  };
  struct Quad {
    F part[4];
  };
  static constexpr int kLanes = 4;
#if defined(__aarch64__)
  static constexpr int kRows = 4;  // 32 registers
#else
  static constexpr int kRows = 2;
#endif
  static constexpr int kPagePairRows = 0;
  static constexpr int kValueVectors = 4;

  static F zero() { return F{0, 0, 0, 0}; }
  static F set1(float x) { return F{x, x, x, x}; }
  static F load(const float* at) {
    F x;
    __builtin_memcpy(&x, at, 16);
    return x;
  }
  static void store(float* at, F x) { __builtin_memcpy(at, &x, 16); }
  static F mul(F a, F b) { return a * b; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F swap_pairs(F x) { return F{x[1], x[0], x[3], x[2]}; }
  static float first(F x) { return x[0]; }
  static float reduce_add(F x) { return (x[0] + x[1]) + (x[2] + x[3]); }
  static float reduce_max(F x) {
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
  }
  // 2^x: x = n + f, |f| ≤ 1/2; polynomial of 2^f (9e-8), n into the exponent. 0 below 2^-126; NaN stays.
  static F exp2(F x) {
    const F lowest = set1(-126.0f), highest = set1(127.0f), round = set1(12582912.0f);
    const I tiny = x < lowest;
    x = lowest > x ? lowest : x;
    x = highest < x ? highest : x;
    const F shifted = x + round;
    const F f = x - (shifted - round);
    F p = set1(0.001326472731307149f);
    p = p * f + set1(0.009671512991189957f);
    p = p * f + set1(0.05550733581185341f);
    p = p * f + set1(0.24022242426872253f);
    p = p * f + set1(0.6931470036506653f);
    p = p * f + set1(1.0f);
    const I exponent = reinterpret_cast<I>(shifted) << 23;
    const F power = reinterpret_cast<F>((reinterpret_cast<I>(p) + exponent) & ~tiny);
    return x == x ? power : x;  // NOLINT(misc-redundant-expression): NaN stays NaN
  }
  static F tanh(F x) { return 1.0f - 2.0f / (1.0f + exp2(x * 2.885390082f)); }

  static Pair load_pair(const std::byte* at) {
    I x;
    __builtin_memcpy(&x, at, 16);
    return {reinterpret_cast<F>(x << 16), reinterpret_cast<F>(x & static_cast<std::int32_t>(0xffff0000u))};
  }
  static Quad load_quad(const std::byte* at) {
    I x;
    __builtin_memcpy(&x, at, 16);
    return {{__builtin_convertvector((x << 24) >> 24, F), __builtin_convertvector((x << 16) >> 24, F),
             __builtin_convertvector((x << 8) >> 24, F), __builtin_convertvector(x >> 24, F)}};
  }
  static F dot(F sum, Pair cell, const float* with) { return sum + cell.even * with[0] + cell.odd * with[1]; }
  static F dot4(F sum, Quad cell, const float* with) {
    return sum + (cell.part[0] * with[0] + cell.part[1] * with[1]) +
           (cell.part[2] * with[2] + cell.part[3] * with[3]);
  }

  // Masks: all bits of a lane, or none.
  static F at_least(F a, F b) { return reinterpret_cast<F>(a >= b); }
  static F unordered(F x) { return reinterpret_cast<F>(x != x); }  // NOLINT(misc-redundant-expression)
  static F either(F a, F b) { return reinterpret_cast<F>(reinterpret_cast<I>(a) | reinterpret_cast<I>(b)); }
  static F both(F a, F b) { return reinterpret_cast<F>(reinterpret_cast<I>(a) & reinterpret_cast<I>(b)); }
  static bool any(F mask) {
    const I m = reinterpret_cast<I>(mask);
    return (m[0] | m[1] | m[2] | m[3]) != 0;
  }
};

}  // namespace
}  // namespace mlxs::cpu
