// The integers that the planes exchange. All ids are plain numbers so that a StepPlan can be stored and
// replayed.
#pragma once

#include <cstdint>

namespace mlxs {

using TokenId = std::int32_t;
using PageId = std::int32_t;      // index of a KV page of one model; -1 is no page
using RequestId = std::uint64_t;  // unique for the life of the process

inline constexpr int kPageTokens = 16;  // tokens of one KV page

}  // namespace mlxs
