// The instructions of src/backend/cuda/machine.cuh for the CPU, with the same meaning.
#pragma once

#include "keywords.h"

#define MLXS_HAS_WGMMA 1
#define MLXS_DYNAMIC_SHARED(name, alignment) char* const name = mlxs::emulated::block().shared

namespace mlxs::cuda {

inline void await() {}
inline void await_alone() {}
// Blocks run one after the other: who is waited for has been, if nobody counted before this kernel.
inline void wait_until(const int* counter, int least) {
  if (*counter >= least && *counter < static_cast<int>(emulated::block().grid.x)) return;
  std::fprintf(stderr, "a block waits for one behind it, or does not for one before it\n");
  std::abort();
}
inline int kept(int value) { return value; }

inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(static_cast<const char*>(at) - emulated::block().shared);
}

inline void copy16(void* to, const void* from) { emulated::self().next_copies.push_back({to, from, 16}); }
inline void copy8(void* to, const void* from) { emulated::self().next_copies.push_back({to, from, 8}); }
inline void commit_copies() {
  emulated::Thread& me = emulated::self();
  me.copies.push_back(std::move(me.next_copies));
  me.next_copies.clear();
}
template <int kPending>
void wait_copies() {
  auto& copies = emulated::self().copies;
  while (copies.size() > kPending) {
    for (const emulated::Copy& copy : copies.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    copies.pop_front();
  }
}
inline uint4 stream_weights16(const void* from) { return *static_cast<const uint4*>(from); }
inline uint4 stream16(const void* from) { return *static_cast<const uint4*>(from); }

inline float low_half(unsigned pair) { return __uint_as_float(pair << 16); }
inline float high_half(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// Element k of the row of `a` that quarter (lane % 4) holds a part of.
template <class Left>
float left_at(const Left& given, int row, int k) {
  struct Four {
    unsigned words[4];
  };
  const Four four = emulated::from_lane<Four>(given, row % 8 * 4 + k % 8 / 2);
  const unsigned word = four.words[row / 8 + k / 8 * 2];
  return k % 2 == 0 ? low_half(word) : high_half(word);
}

inline void mma_to(float (&d)[4], const float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const auto left = emulated::exchange(a, 16);  // a copy: the next turn but one would overwrite it
  const unsigned b[2] = {b0, b1};
  const auto right = emulated::exchange(b, 8);
  struct Two {
    unsigned words[2];
  };
  const int lane = emulated::self().lane;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = c[i];
    for (int k = 0; k < 16; ++k) {
      const unsigned word = emulated::from_lane<Two>(right, column * 4 + k % 8 / 2).words[k / 8];
      sum += left_at(left, row, k) * (k % 2 == 0 ? low_half(word) : high_half(word));
    }
    d[i] = sum;
  }
}
inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { mma_to(d, d, a, b0, b1); }
inline void mma_first(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const float zero[4] = {};
  mma_to(d, zero, a, b0, b1);
}

template <bool kTransposed>
void load_matrices(unsigned (&m)[4], const void* row) {
  const auto rows = emulated::exchange(&row, sizeof(row));
  const int lane = emulated::self().lane;
  for (int i = 0; i < 4; ++i) {
    unsigned halves[2];
    for (int j = 0; j < 2; ++j) {
      const int from = kTransposed ? lane % 4 * 2 + j : lane / 4,
                column = kTransposed ? lane / 4 : lane % 4 * 2 + j;
      halves[j] = emulated::from_lane<const std::uint16_t*>(rows, i * 8 + from)[column];
    }
    m[i] = halves[0] | halves[1] << 16;
  }
}

inline unsigned nibbles_beside_exponents(unsigned word) { return (word & 0x000f000fu) | 0x43004300u; }

inline __nv_bfloat162 fused(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  const float2 x = __bfloat1622float2(a), y = __bfloat1622float2(b), z = __bfloat1622float2(c);
  return __floats2bfloat162_rn(std::fma(x.x, y.x, z.x), std::fma(x.y, y.y, z.y));
}

template <int kColumns>
void multiply(float (&d)[kColumns / 2], const unsigned (&a)[4], unsigned long long b) {
  emulated::self().next_products.push_back(
      {d, a, {static_cast<unsigned>(b), 1024, 0}, kColumns, false, false});
}
inline unsigned long long swizzled(unsigned address) { return address; }
inline void begin_products() {}
inline void commit_products() {
  emulated::Thread& me = emulated::self();
  me.products.push_back(std::move(me.next_products));
  me.next_products.clear();
}
template <int kPending>
void wait_products() {
  emulated::Thread& me = emulated::self();
  while (me.products.size() > kPending) {
    for (const emulated::Product& product : me.products.front()) {
      const auto left = emulated::exchange(product.left, 16);
      for (int n = 0; n < product.columns / 8; ++n) {
        for (int i = 0; i < 4; ++i) {
          const int row = me.lane / 4 + i / 2 * 8, column = n * 8 + me.lane % 4 * 2 + i % 2;
          float sum = product.first ? 0.0f : product.sums[4 * n + i];
          for (int k = 0; k < 16; ++k) {
            const auto c = static_cast<unsigned>(column), line = static_cast<unsigned>(k);
            const emulated::Right& b = product.right;
            const unsigned own = product.lines ? line : c;  // which row of 128 bytes
            const unsigned inside = product.lines ? c % 64 * 2 : (b.start & 127u) + line * 2;
            const unsigned at = (b.start & ~127u) + (product.lines ? c / 64 * b.across : 0) +
                                own / 8 * b.step + own % 8 * 128 + (inside ^ own % 8 << 4);
            std::uint16_t bits;
            std::memcpy(&bits, emulated::block().shared + at, 2);
            sum += left_at(left, row, k) * __uint_as_float(static_cast<unsigned>(bits) << 16);
          }
          product.sums[4 * n + i] = sum;
        }
      }
    }
    me.products.pop_front();
  }
}
inline void show_copies_to_products() {}

}  // namespace mlxs::cuda
