#include "backend/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/machine.h"
#include "mlxs/error.h"

namespace mlxs {

std::vector<std::string_view> backend_names() { return {"auto", "cpu"}; }

std::unique_ptr<Backend> make_backend(std::string_view name, const BackendOptions& options) {
  if (name == "auto" || name == "cpu") {
    const int threads = options.threads == 0 ? cpu::default_threads() : options.threads;
    return std::make_unique<cpu::CpuBackend>(threads, cpu::choose_isa());
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no backend '{}'", name),
              fmt::format("this build has: {}", fmt::join(backend_names(), ", ")), "backend");
}

}  // namespace mlxs
