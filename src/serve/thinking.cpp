#include "serve/thinking.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "serve/fields.h"

namespace mlxs {

Thinking read_effort(std::string_view field, std::string_view effort) {
  static constexpr std::array<std::string_view, 5> kEfforts{"minimal", "low", "medium", "high", "xhigh"};
  if (effort == "none") return {.on = false, .effort = {}};
  if (std::ranges::find(kEfforts, effort) == kEfforts.end()) {
    refuse_field(field, fmt::format("{} = '{}' is not supported", field, effort),
                 "use none, minimal, low, medium, high or xhigh");
  }
  return {.on = true, .effort = effort == "xhigh" ? "high" : std::string(effort)};
}

}  // namespace mlxs
