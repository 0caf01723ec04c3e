#include "backend/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/machine.h"
#ifdef MLXS_HAVE_MLX
#include "backend/mlx/mlx_factory.h"
#endif
#include "mlxs/error.h"

namespace mlxs {

namespace {

// MLX is worth choosing by itself only where it drives a GPU.
#if defined(MLXS_HAVE_MLX) && defined(__APPLE__)
constexpr std::string_view kBest = "mlx";
#else
constexpr std::string_view kBest = "cpu";
#endif

}  // namespace

std::vector<std::string_view> backend_names() {
  return {"auto", "cpu",
#ifdef MLXS_HAVE_MLX
          "mlx"
#endif
  };
}

std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options) {
  const std::string_view chosen = name == "auto" ? kBest : name;
  const int threads = options.threads == 0 ? cpu::default_threads() : options.threads;
#ifdef MLXS_HAVE_MLX
  if (chosen == "mlx") return mlx_backend::make_mlx_backend(threads);
#endif
  if (chosen == "cpu") {
    return std::make_unique<cpu::CpuBackend>(threads, cpu::choose_isa());
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no backend '{}'", name),
              fmt::format("this build has: {}", fmt::join(backend_names(), ", ")), "backend");
}

}  // namespace mlxs
