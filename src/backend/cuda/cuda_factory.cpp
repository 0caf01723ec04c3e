#include "backend/cuda/cuda_factory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "backend/cuda/architectures.h"
#include "backend/cuda/cuda_backend.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

#ifdef MLXS_CUDA_ARCHITECTURES  // cmake/cuda.cmake
constexpr std::string_view kArchitectures = MLXS_CUDA_ARCHITECTURES;
#else
constexpr std::string_view kArchitectures;  // any
#endif
constexpr int kLeastMajor = 8;  // mma.sync of bf16, cp.async

std::string release(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

Obstacle no_driver(std::string_view status) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return {"no NVIDIA driver is installed", "install NVIDIA's driver"};
  if (driver / 1000 < runtime / 1000) {
    return {
        fmt::format("the NVIDIA driver knows CUDA {}, this build needs {}", release(driver),
                    release(runtime)),
        fmt::format("update the driver, or build with a toolkit of CUDA {} (12.8 or newer)", driver / 1000)};
  }
  return {std::string(status), "nvidia-smi says whether the driver works"};
}

// Of a device that exists.
Obstacle no_kernels(int device) {
  cudaDeviceProp properties{};
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, device); status != cudaSuccess)
    return {cudaGetErrorString(status), "nvidia-smi says whether the GPU works"};
  if (has_kernels_for(kArchitectures, properties.major, properties.minor)) return {};
  const std::string name =
      fmt::format("device {} ({}) is sm_{}{}", device, properties.name, properties.major, properties.minor);
  if (properties.major < kLeastMajor) {
    return {fmt::format("{}, and the kernels need sm_{}0 or newer", name, kLeastMajor),
            "choose another GPU with --device"};
  }
  return {fmt::format("{}, and this build has kernels for {}", name, kArchitectures),
          fmt::format("build with -DMLXS_CUDA_ARCHITECTURES={}{}{}", properties.major, properties.minor,
                      properties.major == 9 ? "a-real" : "-real")};
}

}  // namespace

Obstacle obstacle(int device) {
  // As nvidia-smi numbers them, which is what --device says; read by the driver when it is first called.
  static const int order = setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
  static_cast<void>(order);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  Obstacle found;
  if (status != cudaSuccess) {
    found = no_driver(cudaGetErrorString(status));
  } else if (device < 0 || device >= count) {
    found = {fmt::format("there is no device {}, only {}", device, count),
             "nvidia-smi lists the devices; CUDA_VISIBLE_DEVICES hides some"};
  } else {
    found = no_kernels(device);
  }
  cudaGetLastError();  // a refusal is no error of a later call
  return found;
}

std::unique_ptr<Backend> make_cuda_backend(int device, int threads, const MetalOptimizations& optimizations) {
  if (const Obstacle found = obstacle(device); !found.reason.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the cuda backend cannot run here: {}", found.reason),
                found.remedy + ", or use --backend cpu", "backend");
  }
  return std::make_unique<CudaBackend>(device, threads, optimizations);
}

}  // namespace mlxs::cuda
