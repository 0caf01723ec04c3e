// What bias, mask and penalties make of a row's logits. A mask looks at all of them; the rest touches only the
// tokens that it names, so a row's items are one block's, whatever the vocabulary.
#include "backend/cuda/adjust.h"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256, kMaskBlocks = 32, kItemThreads = 512;

__global__ __launch_bounds__(kThreads) void mask_kernel(const float* logits, int columns,
                                                        const __grid_constant__ Adjustments by, float* to) {
  await();
  const int mask = by.rows[blockIdx.y].mask;
  const bool copies = to != logits;
  if (mask == 0 && !copies) return;
  logits += static_cast<size_t>(blockIdx.y) * columns;
  to += static_cast<size_t>(blockIdx.y) * columns;
  const unsigned* allowed =
      mask == 0 ? nullptr : by.masks + static_cast<size_t>(mask - 1) * mask_words(columns);
#pragma unroll 4
  for (int i = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x; i < columns;
       i += kMaskBlocks * kThreads) {
    const float value = logits[i];
    if (allowed != nullptr && (allowed[i / 32] >> (i % 32) & 1u) == 0 && !isnan(value)) {
      to[i] = -INFINITY;
    } else if (copies) {
      to[i] = value;
    }
  }
}

// A block a row. Each operation rounds for itself, as the CPU's do.
__global__ __launch_bounds__(kItemThreads) void item_kernel(int columns,
                                                            const __grid_constant__ Adjustments by,
                                                            float* to) {
  await();
  const Adjustment adjustment = by.rows[blockIdx.x];
  if (adjustment.biases + adjustment.counts + adjustment.own == 0) return;
  float* const row = to + static_cast<size_t>(blockIdx.x) * columns;
  const auto in_row = [&](int token) { return token >= 0 && token < columns; };
  __shared__ int own_found;
  if (threadIdx.x == 0) own_found = 0;
  const AdjustItem* items = by.items + adjustment.first;
  for (int i = static_cast<int>(threadIdx.x); i < adjustment.biases; i += kItemThreads) {
    const AdjustItem item = items[i];
    if (in_row(item.token))
      row[item.token] = __fadd_rn(row[item.token], __uint_as_float(static_cast<unsigned>(item.value)));
  }
  __syncthreads();
  const auto penalize = [&](int token, int generated) {
    float x = row[token];
    if (adjustment.repetition != 1.0f)
      x = x > 0.0f ? __fdiv_rn(x, adjustment.repetition) : __fmul_rn(x, adjustment.repetition);
    if (generated > 0) {
      const float often = __fmul_rn(adjustment.frequency, static_cast<float>(generated));
      x = __fsub_rn(x, __fadd_rn(adjustment.presence, often));
    }
    row[token] = x;
  };
  const int own = adjustment.own != 0 ? by.tokens[by.sampled[blockIdx.x]] : -1;
  items += adjustment.biases;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < adjustment.counts; i += kItemThreads) {
    const AdjustItem item = items[i];
    if (!in_row(item.token)) continue;
    const bool is_own = item.token == own;
    if (is_own) own_found = 1;
    penalize(item.token, item.value + (is_own ? 1 : 0));
  }
  __syncthreads();
  if (threadIdx.x == 0 && own_found == 0 && in_row(own)) penalize(own, 1);
}

__global__ void tell_kernel(const float* logits, int rows, int columns, const Pick* best,
                            const __grid_constant__ Picks to) {
  await();
  const int row = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  Pick pick = to.device[row];
  const Pick highest = best[row];
  if (pick.token < 0 || highest.token < 0) return;
  logits += static_cast<size_t>(row) * columns;
  const float value = logits[pick.token], most = logits[highest.token];
  pick.logprob = highest.logprob + (value == most ? 0.0f : value - most);  // both may be +infinity
  to.device[row] = pick;
  to.host[*to.turn][row] = pick;
}

}  // namespace

void adjust(cudaStream_t stream, const float* logits, int rows, int columns, const Adjustments& by,
            float* to) {
  if (by.masks != nullptr || to != logits)
    launch_early(mask_kernel, dim3(kMaskBlocks, rows), kThreads, 0, stream, logits, columns, by, to);
  launch_early(item_kernel, dim3(rows), kItemThreads, 0, stream, columns, by, to);
}

void tell_logprobs(cudaStream_t stream, const float* logits, int rows, int columns, const Pick* best,
                   const Picks& to) {
  launch_early(tell_kernel, dim3((rows + kThreads - 1) / kThreads), kThreads, 0, stream, logits, rows, columns,
               best, to);
}

}  // namespace mlxs::cuda
