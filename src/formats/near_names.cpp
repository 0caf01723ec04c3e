#include "formats/near_names.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace mlxs {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

std::size_t edit_distance(std::string_view a_text, std::string_view b_text) {
  const std::string a = lower(a_text), b = lower(b_text);
  // Rows of the table for a's prefixes of length i-2, i-1 and i.
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::vector<std::string> near_names(std::string_view name, std::vector<std::string> candidates,
                                    std::size_t count) {
  const std::string wanted = lower(name);
  std::vector<std::pair<std::size_t, std::string>> near;
  for (std::string& candidate : candidates) {
    // A third of the letters may be wrong; a name that was only begun is as near as one typing error.
    std::size_t distance = edit_distance(name, candidate);
    const std::size_t allowed = std::max<std::size_t>(1, std::max(name.size(), candidate.size()) / 3);
    if (wanted.size() >= 3 && lower(candidate).starts_with(wanted))
      distance = std::min<std::size_t>(distance, 1);
    if (distance <= allowed) near.emplace_back(distance, std::move(candidate));
  }
  std::ranges::sort(near);
  std::vector<std::string> names;
  for (auto& [distance, candidate] : near) {
    if (names.size() < count && std::ranges::find(names, candidate) == names.end())
      names.push_back(std::move(candidate));
  }
  return names;
}

}  // namespace mlxs
