// Hash of a page's tokens chained onto the hash of everything before them: equal chains, equal hashes.
// 64 bits, every input bit reaches every output bit. It finds a page; KvPool compares the tokens themselves,
// because collisions can be constructed (kv_pool_test.cpp does).
#pragma once

#include <cstdint>
#include <span>

#include "base/types.h"

namespace mlxs {

// A bijection with full avalanche (the finalizer of SplitMix64, Steele et al. 2014).
constexpr std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The hash before the first page; a bijection of the salt.
constexpr std::uint64_t chain_root(std::uint64_t salt) { return mix64(salt + 0x9e3779b97f4a7c15u); }

constexpr std::uint64_t chain_hash(std::uint64_t before, std::span<const TokenId, kPageTokens> tokens) {
  static_assert(kPageTokens % 2 == 0);
  for (std::size_t i = 0; i < kPageTokens; i += 2) {
    const std::uint64_t pair = std::uint64_t{static_cast<std::uint32_t>(tokens[i])} << 32 |
                               static_cast<std::uint32_t>(tokens[i + 1]);
    before = mix64(before ^ pair);
  }
  return before;
}

}  // namespace mlxs
