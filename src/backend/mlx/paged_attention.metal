// Attention of decode rows over KV pages, as the body of a kernel that MLX wraps (mlx_paged_attention.cpp
// names its arguments). A threadgroup is one row and head: its simdgroups take the row's visible tokens in
// turn, each with a running softmax (Milakov & Gimelshein 2018), and join them at the end.
constexpr int kLanes = 32;
constexpr int kKeySlices = (KEY_DIM + kLanes - 1) / kLanes;
constexpr int kValueSlices = (VALUE_DIM + kLanes - 1) / kLanes;

const int row = int(threadgroup_position_in_grid.x), head = int(threadgroup_position_in_grid.y);
const int lane = int(thread_index_in_simdgroup), group = int(simdgroup_index_in_threadgroup);
const int kv_head = head / (HEADS / KV_HEADS);
const int length = lengths[row];
const int first = WINDOW > 0 && length > WINDOW ? length - WINDOW : 0;

float query[kKeySlices];
for (int i = 0; i < kKeySlices; ++i) {
  const int column = lane + i * kLanes;
  query[i] = column < KEY_DIM ? float(queries[(row * HEADS + head) * KEY_DIM + column]) * scale : 0.0f;
}

float most = -INFINITY, total = 0.0f;
float sum[kValueSlices];
for (int i = 0; i < kValueSlices; ++i) sum[i] = 0.0f;
for (int token = first + group; token < length; token += SIMDGROUPS) {
  const int page = pages[row * pages_shape[1] + token / PAGE_TOKENS];
  // In 64 bits: a cache may hold more than 2^31 numbers.
  const long slot = (long(page) * PAGE_TOKENS + token % PAGE_TOKENS) * KV_HEADS + kv_head;
  float score = 0.0f;
  for (int i = 0; i < kKeySlices; ++i) {
    const int column = lane + i * kLanes;
    if (column < KEY_DIM) score += query[i] * float(keys[slot * KEY_DIM + column]);
  }
  score = simd_sum(score);
  if (HAS_SOFT_CAP) score = soft_cap * metal::tanh(score / soft_cap);
  const float higher = metal::max(most, score);
  const float keep = metal::exp(most - higher), weight = metal::exp(score - higher);
  most = higher;
  total = total * keep + weight;
  for (int i = 0; i < kValueSlices; ++i) {
    const int column = lane + i * kLanes;
    if (column < VALUE_DIM) sum[i] = sum[i] * keep + weight * float(values[slot * VALUE_DIM + column]);
  }
}

threadgroup float all_most[SIMDGROUPS];
threadgroup float all_total[SIMDGROUPS];
threadgroup float all_sums[SIMDGROUPS * VALUE_DIM];
if (lane == 0) {
  all_most[group] = most;
  all_total[group] = total;
}
for (int i = 0; i < kValueSlices; ++i) {
  const int column = lane + i * kLanes;
  if (column < VALUE_DIM) all_sums[group * VALUE_DIM + column] = sum[i];
}
threadgroup_barrier(mem_flags::mem_threadgroup);

float top = HAS_SINKS ? float(sinks[head]) : -INFINITY;
for (int g = 0; g < SIMDGROUPS; ++g) top = metal::max(top, all_most[g]);
float denominator = HAS_SINKS ? metal::exp(float(sinks[head]) - top) : 0.0f;
for (int g = 0; g < SIMDGROUPS; ++g) denominator += all_total[g] * metal::exp(all_most[g] - top);
for (int column = group * kLanes + lane; column < VALUE_DIM; column += SIMDGROUPS * kLanes) {
  float value = 0.0f;
  for (int g = 0; g < SIMDGROUPS; ++g)
    value += all_sums[g * VALUE_DIM + column] * metal::exp(all_most[g] - top);
  out[(row * HEADS + head) * VALUE_DIM + column] = T(value / denominator);
}
