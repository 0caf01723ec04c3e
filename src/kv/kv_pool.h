// KV pages of one model as numbers: who holds which page, which pages keep a reusable prefix, what is evicted next.
// No tensors, no clock, no threads: the engine thread owns it; deterministic. Pages hold kPageTokens tokens.
// Every page is exactly one of free, held (referenced by ≥ 1 sequence) or cached (unreferenced, prefix kept); check() proves it.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/types.h"

namespace mlxs {

struct KvPoolConfig {
  std::int32_t num_pages = 0;
  bool prefix_cache = true;
};

struct KvPoolStats {
  std::int32_t total = 0, free = 0, held = 0, cached = 0;  // pages
  std::uint64_t prefix_queries = 0, prefix_hits = 0;       // tokens asked for, tokens found
  std::uint64_t evictions = 0;                             // cached pages given up
};

// One sequence's pages. Made by KvPool::open(), ended by KvPool::close(); movable value, never copied.
class KvSequence {
 public:
  std::span<const PageId> pages() const { return pages_; }
  std::int32_t committed_tokens() const { return committed_; }  // tokens whose KV is computed and known to the pool
 private:
  friend class KvPool;
  std::vector<PageId> pages_;
  std::int32_t committed_ = 0;
  std::vector<std::uint64_t> hashes_;  // chain hash of each full committed page
  std::uint64_t root_ = 0;
};

class KvPool {
 public:
  explicit KvPool(KvPoolConfig config);

  // A sequence that shares every full page of `tokens` that the cache holds (longest common prefix, at most
  // tokens.size() - 1 tokens, so that at least one row is computed). The hit is committed_tokens(). `salt` separates caches
  // (tenant, adapter); equal tokens under different salts never share.
  KvSequence open(std::span<const TokenId> tokens, std::uint64_t salt = 0);
  // How many tokens open() would reuse; changes nothing.
  std::int32_t peek_prefix(std::span<const TokenId> tokens, std::uint64_t salt = 0) const;
  // Grows to hold `tokens` tokens. False (and no change) if free + cached pages do not suffice.
  bool reserve(KvSequence& sequence, std::int32_t tokens);
  // KV of tokens[0, count) is now computed: full pages enter the prefix tree. tokens: the sequence's tokens from its start.
  void commit(KvSequence& sequence, std::span<const TokenId> tokens, std::int32_t count);
  // Gives the pages back; full committed pages stay cached until evicted (least recently used, leaves first).
  void close(KvSequence&& sequence);
  void drop_cache();  // every cached page becomes free

  std::int32_t available() const;  // free + cached
  KvPoolStats stats() const;
  static std::int32_t pages_for(std::int32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }
  // Throws kInternal that names the broken invariant. O(pages).
  void check() const;

 private:
  struct Page {
    std::int32_t references = 0;
    std::uint64_t hash = 0;  // chain hash if indexed
    bool indexed = false;
    std::list<PageId>::iterator lru{};  // valid while cached
  };
  PageId take_page();
  void release_page(PageId page);

  KvPoolConfig config_;
  std::vector<Page> pages_;
  std::vector<PageId> free_;
  std::list<PageId> lru_;  // cached pages, least recently used first
  std::unordered_map<std::uint64_t, PageId> index_;
  KvPoolStats stats_;
};

}  // namespace mlxs
