// y = epilogue(norm(x) · Wᵀ): chooses the kernels for the weight's formats and the number of rows, brings the
// input into the form they want, and spreads panels of outputs over the pool. The engine thread calls.
// Scratch comes from the step arena.
#pragma once

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/step_arena.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

// From this many rows on, weights unpacked to bf16 tiles replace dot products of packed ones. Four would be
// faster (6 % there); seven keeps the bits of a row the same alone and in small company, so that a seed
// repeats.
inline constexpr int kTileThreshold = 7;

struct LinearPath {
  const LinearKernels* dots = nullptr;
  const TileKernels* tiles = nullptr;  // null: no AMX
  int tile_rows = kTileThreshold;      // tiles from this many rows on
};
LinearPath linear_path(Isa isa);

struct LinearInput {
  const float* x = nullptr;  // [rows, columns of the weight]
  std::size_t stride = 0;
  int rows = 0;
  RowNorm norm;
};

struct LinearOutput {
  float* y = nullptr;  // [rows, outputs, or half of them if gated]; may be `residual`
  std::size_t stride = 0;
  const float* bias = nullptr;
  const float* residual = nullptr;
  std::size_t residual_stride = 0;
  Activation activation = Activation::kNone;
  bool gated = false;
  float soft_cap = 0.0f;
};

void linear(ThreadPool& pool, const LinearPath& path, StepArena& arena, const CpuWeight& weight,
            const LinearInput& in, const LinearOutput& out, const NextWeight& next = {});

// norm() on its own: y [rows, columns], may be x.
void normalize(ThreadPool& pool, const LinearPath& path, const LinearInput& in, std::int64_t columns,
               float* y, std::size_t y_stride);

}  // namespace mlxs::cpu
