// Launching kernels. Early ones start while the one before ends (programmatic dependent launch): each begins
// with what does not depend on it, and calls await() before it reads or writes anything else. Older GPUs run
// them one after the other.
#pragma once

#include <cuda_runtime.h>

#include <atomic>

#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

constexpr int kMostDevices = 64;  // of a machine

// The thread's, less than kMostDevices.
inline int this_device() {
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess ? device % kMostDevices : 0;
}
// A number that a GPU has, asked for once.
template <cudaDeviceAttr kWhich>
int device_number(int otherwise) {
  static std::atomic<int> known[kMostDevices];  // 0: not asked for yet
  std::atomic<int>& own = known[this_device()];
  if (const int number = own.load(std::memory_order_relaxed); number != 0) return number;
  int number = otherwise;
  if (cudaDeviceGetAttribute(&number, kWhich, this_device()) == cudaSuccess)
    own.store(number, std::memory_order_relaxed);
  return number;
}
// Its compute capability, the part before the dot.
inline int gpu_major() { return device_number<cudaDevAttrComputeCapabilityMajor>(0); }

// together: blocks of the grid's z that run at once and see each other's shared memory, on Hopper.
template <class... Parameters, class... Arguments>
void launch(bool early, int together, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
            size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2]{};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (early && gpu_major() >= 9) {
    cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  if (together > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = static_cast<unsigned>(together);
  }
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <class Kernel, class... Arguments>
void launch_cluster(Kernel kernel, int together, dim3 grid, unsigned threads, size_t shared_bytes,
                    cudaStream_t stream, Arguments&&... arguments) {
  launch(true, together, kernel, grid, threads, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}
template <class Kernel, class... Arguments>
void launch_early(Kernel kernel, dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t stream,
                  Arguments&&... arguments) {
  launch(true, 1, kernel, grid, threads, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}
template <class Kernel, class... Arguments>
void launch_after(Kernel kernel, dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t stream,
                  Arguments&&... arguments) {
  launch(false, 1, kernel, grid, threads, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}

// More dynamic shared memory than 48 KiB, which a kernel must ask for once on each GPU.
template <auto kKernel>
void allow_shared(size_t bytes) {
  static std::atomic<unsigned long long> allowed{0};  // on which
  const unsigned long long own = 1ull << this_device();
  if ((allowed.load(std::memory_order_relaxed) & own) != 0) return;
  cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  allowed.fetch_or(own, std::memory_order_relaxed);
}
// Whether kernels were compiled with clusters for this GPU: MLXS_HAS_CLUSTERS of machine.cuh.
inline bool can_cluster() { return gpu_major() == 9; }
// The most that a block may have, less some for what is not dynamic: 227 KiB on Hopper and sm_100, 163 on
// sm_80, 99 on other GPUs.
inline size_t most_shared() {
  return static_cast<size_t>(device_number<cudaDevAttrMaxSharedMemoryPerBlockOptin>(48 * 1024)) - 10 * 1024;
}

}  // namespace mlxs::cuda
