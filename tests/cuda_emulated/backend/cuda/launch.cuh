// Launches of src/backend/cuda/launch.cuh on the CPU.
#pragma once

#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

template <class... Parameters, class... Arguments>
void launch_after(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared_bytes,
                  cudaStream_t stream, Arguments&&... arguments) {
  emulated::check_stream(stream);
  emulated::check_shared(reinterpret_cast<const void*>(kernel), shared_bytes);
  emulated::queue(
      [=, values = std::tuple<std::decay_t<Parameters>...>(static_cast<Parameters>(arguments)...)] {
        emulated::run_grid(grid, threads, shared_bytes, [&] { std::apply(kernel, values); });
      });
}
template <class Kernel, class... Arguments>
void launch_early(Kernel kernel, dim3 grid, unsigned threads, std::size_t shared_bytes, cudaStream_t stream,
                  Arguments&&... arguments) {
  launch_after(kernel, grid, threads, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}
template <class Kernel, class... Arguments>
void launch_cluster(Kernel kernel, int, dim3 grid, unsigned threads, std::size_t shared_bytes,
                    cudaStream_t stream, Arguments&&... arguments) {
  launch_after(kernel, grid, threads, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}
template <auto kKernel>
void allow_shared(std::size_t bytes) {
  emulated::allow_shared(reinterpret_cast<const void*>(kKernel), bytes);
}
inline bool can_cluster() { return false; }
inline std::size_t most_shared() { return emulated::most_shared() - 10 * 1024; }

}  // namespace mlxs::cuda
