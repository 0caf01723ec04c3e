// The page pool: a free list, an index of full pages by chain hash, and the cached pages in order of use.
//
// Why leaves go first without counting children: whoever holds a page holds every page before it (open()
// walks from the root, commit() swaps duplicates for the tree's page), and release goes from the last page to
// the first. So a page always became cached after its children, and the oldest cached page has none.
#include "kv/kv_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void fail(std::string what) {
  throw Error(ErrorCode::kInternal, "KV pool: " + std::move(what), "this is a bug; please report it");
}

std::span<const TokenId, kPageTokens> page_tokens(std::span<const TokenId> tokens, std::size_t page) {
  return tokens.subspan(page * kPageTokens).first<kPageTokens>();
}

}  // namespace

KvPool::KvPool(KvPoolConfig config) : config_(config) {
  if (config.num_pages < 1) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("a KV pool of {} pages", config.num_pages),
                "give it at least one page", "num_pages");
  }
  const auto count = static_cast<std::size_t>(config.num_pages);
  pages_.resize(count);
  buckets_.assign(std::bit_ceil(count), -1);
  free_.reserve(count);
  for (PageId page = config.num_pages; page-- > 0;) free_.push_back(page);
}

KvSequence KvPool::open(std::span<const TokenId> tokens, std::uint64_t salt) {
  KvSequence sequence;
  sequence.salt_ = salt;
  prefix_queries_ += tokens.size();
  extend_prefix(sequence, tokens);
  return sequence;
}

std::int32_t KvPool::extend_prefix(KvSequence& sequence, std::span<const TokenId> tokens) {
  if (!config_.prefix_cache || sequence.committed_ % kPageTokens != 0) return 0;
  const auto first = static_cast<std::size_t>(sequence.committed_ / kPageTokens);
  std::size_t page = first;
  PageId parent = page > 0 ? sequence.pages_[page - 1] : -1;
  for (; (page + 1) * kPageTokens < tokens.size(); ++page) {
    const PageTokens block = page_tokens(tokens, page);
    const PageId found = find(parent, sequence.salt_, block, hash_after(parent, sequence.salt_, block));
    if (found < 0) break;
    hold(found);
    if (page < sequence.pages_.size()) {
      release(std::exchange(sequence.pages_[page], found));
    } else {
      sequence.pages_.push_back(found);
    }
    parent = found;
  }
  const auto gained = static_cast<std::int32_t>((page - first) * kPageTokens);
  sequence.committed_ += gained;
  prefix_hits_ += static_cast<std::uint64_t>(gained);
  return gained;
}

PrefixHit KvPool::peek_prefix(std::span<const TokenId> tokens, std::uint64_t salt) const {
  PrefixHit hit;
  if (!config_.prefix_cache) return hit;
  PageId parent = -1;
  for (std::size_t page = 0; (page + 1) * kPageTokens < tokens.size(); ++page) {
    const PageTokens block = page_tokens(tokens, page);
    parent = find(parent, salt, block, hash_after(parent, salt, block));
    if (parent < 0) break;
    hit.tokens += kPageTokens;
    hit.cached_pages += at(parent).holders == 0 ? 1 : 0;
  }
  return hit;
}

std::optional<std::uint64_t> KvPool::next_page_hash(const KvSequence& sequence,
                                                    std::span<const TokenId> tokens) const {
  const auto page = static_cast<std::size_t>(sequence.committed_ / kPageTokens);
  const bool shareable = sequence.committed_ % kPageTokens == 0 && (page + 1) * kPageTokens < tokens.size();
  if (!config_.prefix_cache || !shareable) return std::nullopt;
  const PageId parent = page > 0 ? sequence.pages_[page - 1] : -1;
  return hash_after(parent, sequence.salt_, page_tokens(tokens, page));
}

bool KvPool::reserve(KvSequence& sequence, std::int32_t tokens) {
  const std::int32_t missing = pages_for(tokens) - static_cast<std::int32_t>(sequence.pages_.size());
  if (missing > available()) return false;
  for (std::int32_t i = 0; i < missing; ++i) sequence.pages_.push_back(take_page());
  return true;
}

void KvPool::commit(KvSequence& sequence, std::span<const TokenId> tokens, std::int32_t count) {
  if (count < sequence.committed_ || static_cast<std::size_t>(count) > tokens.size() ||
      static_cast<std::size_t>(pages_for(count)) > sequence.pages_.size()) {
    fail(fmt::format("commit of {} tokens after {}, with {} tokens and {} pages", count, sequence.committed_,
                     tokens.size(), sequence.pages_.size()));
  }
  const std::int32_t first = sequence.committed_ / kPageTokens;
  sequence.committed_ = count;
  if (!config_.prefix_cache) return;
  for (auto page = static_cast<std::size_t>(first); page < static_cast<std::size_t>(count / kPageTokens);
       ++page) {
    PageId& own = sequence.pages_[page];
    const PageId parent = page > 0 ? sequence.pages_[page - 1] : -1;
    const PageTokens block = page_tokens(tokens, page);
    const std::uint64_t hash = hash_after(parent, sequence.salt_, block);
    if (const PageId twin = find(parent, sequence.salt_, block, hash); twin >= 0) {
      hold(twin);
      release(std::exchange(own, twin));
    } else {
      enter_index(own, parent, sequence.salt_, block, hash);
    }
  }
}

void KvPool::close(KvSequence&& sequence) {
  const KvSequence closed = std::move(sequence);
  for (auto page = closed.pages_.rbegin(); page != closed.pages_.rend(); ++page) release(*page);
}

void KvPool::drop_cache() {
  while (oldest_ >= 0) {
    const PageId page = oldest_;
    unlink(page);
    leave_index(page);
    free_.push_back(page);
  }
}

KvPoolStats KvPool::stats() const {
  return {.total = config_.num_pages,
          .free = num_free(),
          .held = config_.num_pages - available(),
          .cached = cached_,
          .prefix_queries = prefix_queries_,
          .prefix_hits = prefix_hits_,
          .evictions = evictions_};
}

std::uint64_t KvPool::hash_after(PageId parent, std::uint64_t salt, PageTokens tokens) const {
  return chain_hash(parent < 0 ? chain_root(salt) : at(parent).hash, tokens);
}

PageId KvPool::find(PageId parent, std::uint64_t salt, PageTokens tokens, std::uint64_t hash) const {
  PageId page = buckets_[hash & (buckets_.size() - 1)];
  for (; page >= 0; page = at(page).next_in_bucket) {
    const Page& candidate = at(page);
    if (candidate.hash == hash && candidate.parent == parent && candidate.salt == salt &&
        std::ranges::equal(candidate.tokens, tokens)) {
      break;
    }
  }
  return page;
}

void KvPool::enter_index(PageId page, PageId parent, std::uint64_t salt, PageTokens tokens,
                         std::uint64_t hash) {
  Page& entry = at(page);
  entry.indexed = true;
  entry.parent = parent;
  entry.salt = salt;
  entry.hash = hash;
  std::ranges::copy(tokens, entry.tokens.begin());
  entry.next_in_bucket = std::exchange(bucket(hash), page);
}

void KvPool::leave_index(PageId page) {
  PageId* link = &bucket(at(page).hash);
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = at(page).next_in_bucket;
  at(page).indexed = false;
}

PageId KvPool::take_page() {
  PageId page = oldest_;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    unlink(page);
    leave_index(page);
    ++evictions_;
  }
  at(page).holders = 1;
  return page;
}

void KvPool::hold(PageId page) {
  if (at(page).holders++ == 0) unlink(page);
}

void KvPool::release(PageId page) {
  if (--at(page).holders > 0) return;
  if (at(page).indexed) {
    link_newest(page);
  } else {
    free_.push_back(page);
  }
}

void KvPool::link_newest(PageId page) {
  at(page).older = newest_;
  at(page).newer = -1;
  (newest_ >= 0 ? at(newest_).newer : oldest_) = page;
  newest_ = page;
  ++cached_;
}

void KvPool::unlink(PageId page) {
  const Page& entry = at(page);
  (entry.older >= 0 ? at(entry.older).newer : oldest_) = entry.newer;
  (entry.newer >= 0 ? at(entry.newer).older : newest_) = entry.older;
  --cached_;
}

void KvPool::check() const {
  std::int32_t held = 0;
  std::vector<std::int32_t> child_holders(pages_.size(), 0);
  for (PageId id = 0; id < config_.num_pages; ++id) {
    const Page& page = at(id);
    if (page.holders < 0) fail(fmt::format("page {} has {} holders", id, page.holders));
    held += page.holders > 0 ? 1 : 0;
    if (!page.indexed) continue;
    if (!config_.prefix_cache) fail(fmt::format("page {} is indexed without a prefix cache", id));
    if (page.hash != hash_after(page.parent, page.salt, page.tokens) ||
        find(page.parent, page.salt, page.tokens, page.hash) != id) {
      fail(fmt::format("page {} is indexed but cannot be found", id));
    }
    if (page.parent < 0) continue;
    const Page& parent = at(page.parent);
    if (!parent.indexed || parent.salt != page.salt) {
      fail(fmt::format("page {} is in the tree without its parent {}", id, page.parent));
    }
    child_holders[static_cast<std::size_t>(page.parent)] += page.holders;
    if (child_holders[static_cast<std::size_t>(page.parent)] > parent.holders) {
      fail(fmt::format("page {} is held without its parent {}", id, page.parent));
    }
  }
  if (held + available() != config_.num_pages) {
    fail(fmt::format("{} free + {} cached + {} held != {} pages", num_free(), cached_, held,
                     config_.num_pages));
  }
  check_order();
}

// Free and cached pages are disjoint, held by nobody, and cached children are older than their parents.
void KvPool::check_order() const {
  std::vector<bool> seen(pages_.size(), false);
  for (const PageId id : free_) {
    if (at(id).holders != 0 || at(id).indexed || seen[static_cast<std::size_t>(id)]) {
      fail(fmt::format("page {} is free and in use, or free twice", id));
    }
    seen[static_cast<std::size_t>(id)] = true;
  }
  std::int32_t cached = 0;
  PageId older = -1;
  for (PageId id = oldest_; id >= 0; older = id, id = at(id).newer, ++cached) {
    const Page& page = at(id);
    if (page.holders != 0 || !page.indexed || page.older != older || seen[static_cast<std::size_t>(id)]) {
      fail(fmt::format("page {} is cached and in use, or out of order", id));
    }
    seen[static_cast<std::size_t>(id)] = true;
    if (page.parent >= 0 && seen[static_cast<std::size_t>(page.parent)]) {
      fail(fmt::format("page {} would be evicted before its child {}", page.parent, id));
    }
  }
  if (cached != cached_ || older != newest_)
    fail(fmt::format("{} cached pages, {} counted", cached, cached_));
}

}  // namespace mlxs
