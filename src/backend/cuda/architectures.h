// Which GPUs a build has kernels for: CMake's list of architectures, as nvcc's rules read it. Pure. Others
// would start and then fail at their first launch.
#pragma once

#include <charconv>
#include <string_view>

namespace mlxs::cuda {

// list: as CMAKE_CUDA_ARCHITECTURES, but with commas: "80-real,90a-real,120"; empty, or an entry that names
// no number ("native"), fits all.
inline bool has_kernels_for(std::string_view list, int major, int minor) {
  if (list.empty()) return true;
  const int here = 10 * major + minor;
  while (!list.empty()) {
    const std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(entry.size() < list.size() ? entry.size() + 1 : list.size());
    int number = 0;
    const auto [end, status] = std::from_chars(entry.data(), entry.data() + entry.size(), number);
    if (status != std::errc()) return true;
    const std::string_view rest = entry.substr(static_cast<std::size_t>(end - entry.data()));
    if (rest.starts_with('a')) {  // of this GPU alone
      if (here == number) return true;
      continue;
    }
    if (major == 9) continue;  // wgmma and clusters, which the host counts on there, are 90a's alone
    const bool later = !rest.ends_with("-real") && !rest.starts_with('f');  // the driver compiles for others
    if (here >= number && (later || number / 10 == major)) return true;
  }
  return false;
}

}  // namespace mlxs::cuda
