#include "backend/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/machine.h"
#ifdef MLXS_HAVE_MLX
#include "backend/mlx/mlx_factory.h"
#endif
#ifdef MLXS_HAVE_CUDA
#include "backend/cuda/cuda_factory.h"
#endif
#include "backend/metal_options.h"
#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {

namespace {

// MLX is worth choosing by itself only where it drives a GPU.
#if defined(MLXS_HAVE_MLX) && defined(__APPLE__)
constexpr std::string_view kBest = "mlx";
#else
constexpr std::string_view kBest = "cpu";
#endif

// CUDA wherever a GPU and its driver are; a build with it says why it is not used.
std::string_view best_here([[maybe_unused]] int device) {
#ifdef MLXS_HAVE_CUDA
  const cuda::Obstacle found = cuda::obstacle(device);
  if (found.reason.empty()) return "cuda";
  log::info("no CUDA: {}; using {}", found.reason, kBest);
#endif
  return kBest;
}

}  // namespace

std::vector<std::string_view> backend_names() {
  return {
      "auto",
      "cpu",
#ifdef MLXS_HAVE_MLX
      "mlx",
#endif
#ifdef MLXS_HAVE_CUDA
      "cuda",
#endif
  };
}

std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options) {
  const std::string_view chosen = name == "auto" ? best_here(options.device) : name;
  validate(options.optimizations);
  const int threads = options.threads == 0 ? cpu::default_threads() : options.threads;
#ifdef MLXS_HAVE_MLX
  if (chosen == "mlx") return mlx_backend::make_mlx_backend(threads, options.optimizations);
#endif
#ifdef MLXS_HAVE_CUDA
  if (chosen == "cuda") return cuda::make_cuda_backend(options.device, threads, options.optimizations);
#endif
  if (chosen == "cpu") {
    return std::make_unique<cpu::CpuBackend>(threads, cpu::choose_isa(), options.optimizations);
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no backend '{}'", name),
              fmt::format("this build has: {}", fmt::join(backend_names(), ", ")), "backend");
}

int host_threads(const Backend& backend, const BackendOptions& options) {
  if (backend.device().name != "cpu") return 1;  // one that hands out work
  return options.threads == 0 ? cpu::default_threads() : options.threads;
}

}  // namespace mlxs
