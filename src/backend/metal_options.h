// metal_optimizations: are the values in range, and what becomes of a part that this machine cannot have.
#pragma once

#include <memory>
#include <string_view>

#include "mlxs/error.h"
#include "mlxs/metal_optimizations.h"

namespace mlxs {

// Throws kInvalidArgument with the key, its value and its range.
void validate(const MetalOptimizations& options);

// Logs at fallback_log_level that `part` is left out; without graceful_fallback throws kInvalidArgument.
void leave_out(const MetalOptimizations& options, std::string_view part, std::string_view reason);

// make()'s result; null if the part is off, or left out because make() threw.
template <typename Make>
auto make_part(const MetalOptimizations& options, bool part_enabled, std::string_view part, Make make)
    -> decltype(make()) {
  if (!options.enabled || !part_enabled) return nullptr;
  try {
    return make();
  } catch (const Error& error) {
    leave_out(options, part, error.what());
    return nullptr;
  }
}

}  // namespace mlxs
