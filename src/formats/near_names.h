// "Did you mean …": the candidates closest to a mistyped name. Pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

// Insertions, deletions, substitutions and swaps of neighbours that turn one into the other (optimal string
// alignment, the restricted Damerau-Levenshtein distance), letter case ignored.
std::size_t edit_distance(std::string_view a, std::string_view b);

// At most `count` candidates that are close to the name or start with it, nearest first, without duplicates.
std::vector<std::string> near_names(std::string_view name, std::vector<std::string> candidates,
                                    std::size_t count = 3);

}  // namespace mlxs
