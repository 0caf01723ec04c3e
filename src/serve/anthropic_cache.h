// Anthropic's cache_control: where the beginnings of a prompt end that its sender wants to stay computed, and
// how much of them was computed now. Pure; throws kInvalidArgument naming the field.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/tool_request.h"

namespace mlxs {

inline constexpr std::size_t kMostCacheMarks = 4;  // of a request

// One beginning. Of a mark at a tool or in the system prompt it is all tools and the system prompt up to
// there.
struct CacheMark {
  OrderedJson system;    // as the request has it, cut behind the mark
  OrderedJson messages;  // the same; [] if the mark is before them
  int ttl_ms = 0;
};
// Of a request's body, in the order of the prompt.
std::vector<CacheMark> read_cache_marks(const OrderedJson& body);

// What a prompt's marks came to: the tokens up to each, in whole KV pages and in order.
struct CachedBeginning {
  int tokens = 0;
  int ttl_ms = 0;
};
struct CacheWrites {
  int short_lived = 0, long_lived = 0;  // tokens: kept for five minutes, for an hour
  int total() const { return short_lived + long_lived; }
};
// cached: the tokens that were there before.
CacheWrites cache_writes(std::span<const CachedBeginning> beginnings, int cached);

// The tokens that both prompts begin with, in whole KV pages, but for the last token of `whole`: it is
// computed anew each time.
int common_beginning(std::span<const std::int32_t> whole, std::span<const std::int32_t> beginning);

}  // namespace mlxs
