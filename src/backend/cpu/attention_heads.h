// Norm, rotation and KV append, written plainly: each ISA file includes this and its compiler vectorizes it.
// Everything is in an unnamed namespace on purpose: code compiled for one ISA must not be merged with
// another's.
#pragma once

#include <cstring>

#include "backend/cpu/attention_kernels.h"

namespace mlxs::cpu {
namespace {

// bf16, round to nearest even; NaN stays NaN.
inline std::uint32_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

// Calls body(i) for every i < count, in sixteens that become vectors.
template <class Body>
inline void each_lane(int count, Body body) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int l = 0; l < 16; ++l) body(i + l);
  }
  for (; i < count; ++i) body(i);
}

inline float sum_of_squares(const float* in, int count) {
  float lanes[16] = {};
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int l = 0; l < 16; ++l) lanes[l] += in[i + l] * in[i + l];
  }
  for (int l = 0; i < count; ++i, ++l) lanes[l] += in[i] * in[i];
  float sum = 0.0f;
  for (int l = 0; l < 16; ++l) sum += lanes[l];
  return sum;
}

// Dims that no vector covers, and all dims of odd shapes.
inline void rotate_plain(const HeadTransform& t, const float* cos, const float* sin, float* out) {
  for (int i = 0; i < t.half; ++i) {
    const int low = t.interleaved ? 2 * i : i, high = t.interleaved ? 2 * i + 1 : i + t.half;
    const int c = t.interleaved ? high : i;
    const float a = out[low], b = out[high];
    out[low] = a * cos[c] - b * sin[c];
    out[high] = b * cos[c] + a * sin[c];
  }
}

template <class V>
void transform_head(const HeadTransform& t, const float* __restrict in, const float* __restrict cos,
                    const float* __restrict sin, float* __restrict out) {
  float factor = t.scale;
  if (t.gain != nullptr) {
    factor /= __builtin_sqrtf(sum_of_squares(in, t.dim) / static_cast<float>(t.dim) + t.epsilon);
    const float offset = t.unit_offset ? 1.0f : 0.0f;
    each_lane(t.dim, [&](int d) { out[d] = in[d] * factor * (t.gain[d] + offset); });
    in = out;
    factor = 1.0f;
  }
  const int rotated = 2 * t.half;
  const typename V::F scale = V::set1(factor);
  const auto scaled = [&](int d) { return V::mul(V::load(in + d), scale); };
  int done = 0;  // dims
  if (t.interleaved && rotated % V::kLanes == 0) {
    for (; done < rotated; done += V::kLanes) {
      const typename V::F x = scaled(done);
      V::store(out + done,
               V::add(V::mul(x, V::load(cos + done)), V::mul(V::swap_pairs(x), V::load(sin + done))));
    }
  } else if (!t.interleaved && t.half % V::kLanes == 0) {
    for (; done < t.half; done += V::kLanes) {
      const typename V::F a = scaled(done), b = scaled(done + t.half), c = V::load(cos + done),
                          s = V::load(sin + done);
      V::store(out + done, V::sub(V::mul(a, c), V::mul(b, s)));
      V::store(out + done + t.half, V::add(V::mul(b, c), V::mul(a, s)));
    }
    done = rotated;
  }
  each_lane(t.dim - done, [&](int d) { out[done + d] = in[done + d] * factor; });
  if (done < rotated) rotate_plain(t, cos, sin, out);
  for (int d = t.dim; d < t.padded; ++d) out[d] = 0.0f;
}

inline std::byte* kv_block(const KvView& kv, int page) {
  return kv.base + static_cast<std::size_t>(kv.pages[page]) * kv.page_bytes;
}

// Whether a block's V holds numbers only. A token that a row must not see has probability 0, which makes a
// number of everything else.
inline bool finite_values(const KvLayout& layout, const std::byte* block) {
  if (layout.int8) {
    std::uint32_t scales[kPageTokens], bad = 0;
    std::memcpy(scales, block + layout.scale_offset + sizeof(scales), sizeof(scales));
    for (const std::uint32_t bits : scales) bad |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    return bad == 0;
  }
  const auto* values = reinterpret_cast<const std::uint16_t*>(block + layout.value_offset);
  std::uint32_t bad = 0;
  for (int i = 0; i < layout.value_padded * kPageTokens; ++i)
    bad |= (values[i] & 0x7f80u) == 0x7f80u ? 1u : 0u;
  return bad == 0;
}

// V of one token in one dim, without its scale.
inline float value_of(const KvLayout& layout, const std::byte* block, int slot, int dim) {
  const std::byte* values = block + layout.value_offset;
  if (layout.int8)
    return static_cast<float>(
        static_cast<std::int8_t>(values[(slot / 4 * layout.value_padded + dim) * 4 + slot % 4]));
  std::uint16_t half;
  std::memcpy(&half, values + (slot / 2 * layout.value_padded + dim) * 4 + slot % 2 * 2, 2);
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(half) << 16);
}

void scale_row(const float* __restrict in, float factor, int count, float* __restrict out) {
  each_lane(count, [&](int d) { out[d] = in[d] * factor; });
}

// K of one token into its column of the block.
void append_key_bf16(const KvLayout& layout, std::byte* block, int slot, const float* __restrict key) {
  alignas(64) std::uint16_t words[1024];
  each_lane(layout.key_padded, [&](int d) { words[d] = static_cast<std::uint16_t>(to_bf16(key[d])); });
  auto* k = reinterpret_cast<std::uint32_t*>(block) + slot;
  for (int pair = 0; pair < layout.key_padded / 2; ++pair)
    std::memcpy(k + pair * kPageTokens, words + 2 * pair, 4);
}

// V of one or two tokens into their halves of a lane; `next` (or null) is the odd one of an even `slot`.
void append_value_bf16(const KvLayout& layout, std::byte* block, int slot, const float* __restrict value,
                       const float* __restrict next) {
  auto* __restrict v =
      reinterpret_cast<std::uint32_t*>(block + layout.value_offset) + slot / 2 * layout.value_padded;
  if (slot % 2 != 0) {
    each_lane(layout.value_dim, [&](int d) { v[d] = (v[d] & 0xffffu) | (to_bf16(value[d]) << 16); });
  } else if (next != nullptr) {
    each_lane(layout.value_dim, [&](int d) { v[d] = to_bf16(value[d]) | (to_bf16(next[d]) << 16); });
  } else {
    each_lane(layout.value_dim, [&](int d) { v[d] = to_bf16(value[d]); });
  }
}

// Symmetric int8 with one scale a token: max |x| maps to 127. A NaN or infinity anywhere makes the whole
// token NaN.
inline float int8_scale(const float* values, int count) {
  std::uint32_t largest = 0;  // bits of |x| order as the values do, with infinity and NaN on top
  for (int i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, 4);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  float magnitude;
  std::memcpy(&magnitude, &largest, 4);
  return largest < 0x7f800000u ? magnitude / 127.0f : __builtin_nanf("");
}
inline std::uint32_t to_int8(float value, float inverse) {
  const float scaled =
      value * inverse + 12582912.0f;  // 1.5 · 2^23: the low mantissa bits are the rounded integer
  std::uint32_t bits;
  std::memcpy(&bits, &scaled, 4);
  return bits & 0xffu;
}

void append_int8(const KvLayout& layout, std::byte* block, int slot, const float* __restrict key,
                 const float* __restrict value) {
  auto* scales = reinterpret_cast<float*>(block + layout.scale_offset);
  const float key_scale = int8_scale(key, layout.key_dim);
  const float value_scale = int8_scale(value, layout.value_dim);
  scales[slot] = key_scale;
  scales[kPageTokens + slot] = value_scale;
  const float key_inverse = key_scale > 0.0f ? 1.0f / key_scale : 0.0f;
  const float value_inverse = value_scale > 0.0f ? 1.0f / value_scale : 0.0f;
  auto* k = reinterpret_cast<std::uint32_t*>(block) + slot;
  for (int quad = 0; quad < layout.key_padded / 4; ++quad) {
    const float* x = key + 4 * quad;
    k[quad * kPageTokens] = to_int8(x[0], key_inverse) | (to_int8(x[1], key_inverse) << 8) |
                            (to_int8(x[2], key_inverse) << 16) | (to_int8(x[3], key_inverse) << 24);
  }
  auto* __restrict v =
      reinterpret_cast<std::uint32_t*>(block + layout.value_offset) + slot / 4 * layout.value_padded;
  const int shift = slot % 4 * 8;
  const std::uint32_t keep = ~(0xffu << shift);
  for (int d = 0; d < layout.value_dim; ++d)
    v[d] = (v[d] & keep) | (to_int8(value[d], value_inverse) << shift);
}

// V behind the sequence's last token is multiplied by probability 0, so it must be finite whatever the page
// held before: bf16 becomes zero (appending an even token zeroed its odd neighbour), int8 always is finite
// once its scale is.
void clear_value_tail(const KvLayout& layout, std::byte* block, int used) {
  if (layout.int8) {
    auto* scales = reinterpret_cast<float*>(block + layout.scale_offset);
    for (int slot = used; slot < kPageTokens; ++slot) scales[slot] = scales[kPageTokens + slot] = 0.0f;
    return;
  }
  const std::size_t pair_bytes = static_cast<std::size_t>(layout.value_padded) * 4;
  const auto pairs = static_cast<std::size_t>((used + 1) / 2);
  std::memset(block + layout.value_offset + pairs * pair_bytes, 0, (kPageTokens / 2 - pairs) * pair_bytes);
}

template <class V>
void append_rows(const AppendArgs& args) {
  const KvLayout& layout = *args.kv.layout;
  alignas(64) float key[1024];
  for (int row = 0; row < args.rows; ++row) {
    const int slot = (args.first_token + row) % kPageTokens;
    const std::size_t offset = static_cast<std::size_t>(row) * args.stride;
    const std::size_t angle =
        static_cast<std::size_t>(row) * static_cast<std::size_t>(args.transform.columns);
    const float* value = args.value + offset;
    if (row + 3 < args.rows) {
      for (int d = 0; d < args.transform.dim; d += 16)
        __builtin_prefetch(args.key + offset + 3 * args.stride + d);
      for (int d = 0; d < layout.value_dim; d += 16) __builtin_prefetch(value + 3 * args.stride + d);
    }
    std::byte* block = kv_block(args.kv, (args.first_token + row) / kPageTokens);
    transform_head<V>(args.transform, args.key + offset, args.cos + angle, args.sin + angle, key);
    if (layout.int8) {
      append_int8(layout, block, slot, key, value);
      continue;
    }
    append_key_bf16(layout, block, slot, key);
    // An odd token whose even one is in this call was written with it.
    if (slot % 2 == 0 || row == 0)
      append_value_bf16(layout, block, slot, value, row + 1 < args.rows ? value + args.stride : nullptr);
  }
  const int end = args.first_token + args.rows;
  if (args.clear_tail && end % kPageTokens != 0) {
    clear_value_tail(layout, kv_block(args.kv, end / kPageTokens), end % kPageTokens);
  }
}

}  // namespace
}  // namespace mlxs::cpu
