// Heads with weights of their own as experts that have all rows of a step.
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void heads_kernel(int heads, int rows, int* first, int* turns, int* alive, int* active,
                             int* leading, int* rows_of_places) {
  await();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= heads) {
    first[i] = i * rows;
    turns[i] = i * ((rows + kTurnRows - 1) / kTurnRows);
    alive[i] = i;
    if (i < heads) active[i] = i;
  }
  if (i < heads * kTurnRows) leading[i] = min(i % kTurnRows, rows - 1) * heads + i / kTurnRows;
  if (i < heads * rows) rows_of_places[i] = i % rows * heads + i / rows;
}

}  // namespace

void route_heads(cudaStream_t stream, int heads, int rows, int* first, int* turns, int* alive, int* active,
                 int* leading, int* rows_of_places) {
  const int all = max(heads + 1, heads * max(rows, kTurnRows));
  launch_early(heads_kernel, dim3((all + kThreads - 1) / kThreads), kThreads, 0, stream, heads, rows, first,
               turns, alive, active, leading, rows_of_places);
}

}  // namespace mlxs::cuda
