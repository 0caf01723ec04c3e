// The backends that a test of several of them runs with: those of this build for which this machine has a
// device.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/registry.h"
#include "mlxs/error.h"

namespace mlxs::test {

// Those of which wanted(Backend&) holds.
template <class Wanted>
std::vector<std::string> backends_here(const Wanted& wanted) {
  std::vector<std::string> names;
  for (const std::string_view name : backend_names()) {
    if (name == "auto") continue;
    try {
      if (wanted(*make_backend(name))) names.emplace_back(name);
    } catch (const Error&) {  // built, but this machine has no such device
    }
  }
  return names;
}

// All but the CPU's.
inline std::vector<std::string> other_backends() {
  std::vector<std::string> names = backends_here([](Backend&) { return true; });
  std::erase(names, "cpu");
  return names;
}

}  // namespace mlxs::test
