// The page pool: a free list, the tree of pages, and the cached pages in order of use.
//
// Why leaves go first without counting children: whoever holds a page holds every page before it (open()
// walks from the root, commit() swaps duplicates for the tree's page), and release goes from the last page to
// the first. So a page always became cached after its children, and the oldest cached page has none.
// With a window that holds for what was closed (close() touches what the sequence had passed); a page that a
// running sequence passed may be the oldest and have children: they leave the tree with it.
#include "kv/kv_pool.h"

#include <fmt/format.h>

#include <algorithm>

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

KvPool::KvPool(KvPoolConfig config)
    : config_(config),
      tree_(std::max(config.num_pages, 1)),
      dropped_(static_cast<std::size_t>(std::max(config.num_pages, 1))),
      places_(std::max(config.num_pages, 1), std::max(config.num_window_pages, 0)) {
  if (config.num_pages < 1) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("a KV pool of {} pages", config.num_pages),
                "give it at least one page", "num_pages");
  }
  if (config.max_entries < 1) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("a KV pool of {} entries", config.max_entries),
                "give it at least one, or turn prefix_cache off", "max_entries");
  }
  const bool mixed = config.layer_window > 0 && config.num_window_pages > 0 && config.window == 0;
  if (config.window < 0 || (!mixed && (config.layer_window != 0 || config.num_window_pages != 0))) {
    fail(fmt::format("windows of {} and {} tokens, with {} places", config.window, config.layer_window,
                     config.num_window_pages));
  }
  const auto count = static_cast<std::size_t>(config.num_pages);
  pages_.resize(count);
  free_.reserve(count);
  for (PageId page = config.num_pages; page-- > 0;) free_.push_back(page);
}

void KvPool::advance(TimePoint now) {
  now_ = std::max(now_, now);
  while (oldest_ >= 0 && now_ - at(oldest_).since >= config_.ttl) {
    free_page(drop_oldest(DroppedPages::Cause::kExpired));
  }
  keep_few_entries();
}

KvSequence KvPool::open(std::span<const TokenId> tokens, std::uint64_t salt) {
  KvSequence sequence;
  sequence.salt_ = salt;
  sequence.asked_ = static_cast<std::int32_t>(tokens.size() / kPageTokens);
  prefix_queries_ += tokens.size();
  extend_prefix(sequence, tokens);
  sequence.miss_ = explain_miss(sequence, tokens);
  ++misses_[static_cast<std::size_t>(sequence.miss_.reason)];
  if (sequence.miss_.reason != MissReason::kNone) {
    std::shift_right(recent_misses_.begin(), recent_misses_.end(), 1);
    recent_misses_.front() = sequence.miss_;
  }
  return sequence;
}

KvSequence KvPool::open_uncounted(std::span<const TokenId> tokens, std::uint64_t salt) {
  KvSequence sequence;
  sequence.salt_ = salt;
  const std::uint64_t hits = prefix_hits_;
  extend_prefix(sequence, tokens);
  prefix_hits_ = hits;
  return sequence;
}

void KvPool::take_entered(std::vector<TreePage>& out) {
  out.clear();
  std::swap(out, entered_);
}

PrefixMiss KvPool::explain_miss(const KvSequence& sequence, std::span<const TokenId> tokens) const {
  const auto page = static_cast<std::size_t>(sequence.committed_ / kPageTokens);
  if ((page + 1) * kPageTokens >= tokens.size()) return {};
  PrefixMiss miss{MissReason::kNew, sequence.committed_};
  if (!config_.prefix_cache) return miss;
  const PageId parent = parent_of(sequence, page);
  const auto block = page_tokens(tokens, page);
  const std::uint64_t hash = tree_.hash_after(parent, sequence.salt_, block);
  if (has_layer_window() && tree_.find(parent, sequence.salt_, block, hash) >= 0) {
    miss.reason = MissReason::kWindow;
    return miss;
  }
  switch (dropped_.find(hash)) {
    case DroppedPages::Cause::kEvicted:
      miss.reason = MissReason::kEvicted;
      return miss;
    case DroppedPages::Cause::kExpired:
      miss.reason = MissReason::kExpired;
      return miss;
    case DroppedPages::Cause::kNone:
      break;
  }
  // A common beginning of no token is no beginning, unless pages before it are common.
  const auto [closest, common] = tree_.closest_child(parent, sequence.salt_, block);
  const bool goes_on = common > 0 && tree_.ends_after(closest, common);
  if (!goes_on && (common > 0 || (common == 0 && page > 0))) {
    miss.reason = MissReason::kDiverged;
    miss.token += common;
  }
  return miss;
}

// How many pages that follow each other are of use: as many as the next token finds with its whole window.
class KvPool::WholePrefix {
 public:
  // `pages` of a sequence, of whose windows it holds those from `window_first` on, come before.
  WholePrefix(const KvPool& pool, std::int32_t pages, std::int32_t window_first)
      : pool_(pool), pages_(pages), best_(pages), whole_(pages - window_first) {}

  void add(PageId page) {
    ++pages_;
    whole_ = pool_.places_.of(page) >= 0 ? whole_ + 1 : 0;
    const std::int32_t seen = pages_ - pool_.first_seen(pages_ * kPageTokens);
    if (whole_ >= seen || !pool_.has_layer_window()) best_ = pages_;
  }
  std::int32_t best() const { return best_; }

 private:
  const KvPool& pool_;
  std::int32_t pages_, best_;
  std::int32_t whole_;  // of the last pages, those that have their part
};

std::int32_t KvPool::extend_prefix(KvSequence& sequence, std::span<const TokenId> tokens) {
  if (!config_.prefix_cache || sequence.committed_ % kPageTokens != 0) return 0;
  const std::int32_t first = sequence.committed_ / kPageTokens;
  PageId parent = parent_of(sequence, static_cast<std::size_t>(first));
  if (!may_follow(parent)) return 0;
  found_.clear();
  WholePrefix prefix(*this, first, sequence.window_first_);
  for (auto page = static_cast<std::size_t>(first); (page + 1) * kPageTokens < tokens.size(); ++page) {
    const auto block = page_tokens(tokens, page);
    const PageId found =
        tree_.find(parent, sequence.salt_, block, tree_.hash_after(parent, sequence.salt_, block));
    if (found < 0) break;
    found_.push_back(found);
    prefix.add(found);
    parent = found;
  }
  if (!found_.empty()) sequence.matched_ = first + static_cast<std::int32_t>(found_.size());
  found_.resize(static_cast<std::size_t>(prefix.best() - first));
  if (found_.empty()) return 0;
  give_back_window(sequence);
  for (std::size_t i = 0; i < found_.size(); ++i) {
    const std::size_t page = static_cast<std::size_t>(first) + i;
    hold(found_[i]);
    if (page < sequence.pages_.size()) {
      release(std::exchange(sequence.pages_[page], found_[i]));
    } else {
      sequence.pages_.push_back(found_[i]);
    }
  }
  const auto gained = static_cast<std::int32_t>(found_.size()) * kPageTokens;
  sequence.committed_ += gained;
  reserve_window(sequence, sequence.committed_, sequence.committed_);  // these have their places
  prefix_hits_ += static_cast<std::uint64_t>(gained);
  return gained;
}

PrefixHit KvPool::peek_prefix(std::span<const TokenId> tokens, std::uint64_t salt) const {
  PrefixHit hit;
  if (!config_.prefix_cache) return hit;
  PageId parent = -1;
  std::int32_t cached = 0;
  WholePrefix prefix(*this, 0, 0);
  for (std::size_t page = 0; (page + 1) * kPageTokens < tokens.size(); ++page) {
    const auto block = page_tokens(tokens, page);
    parent = tree_.find(parent, salt, block, tree_.hash_after(parent, salt, block));
    if (parent < 0) break;
    prefix.add(parent);
    cached += at(parent).holders == 0 ? 1 : 0;
    if (prefix.best() == static_cast<std::int32_t>(page) + 1)
      hit = {.tokens = prefix.best() * kPageTokens, .cached_pages = cached};
  }
  return hit;
}

std::optional<std::uint64_t> KvPool::next_page_hash(const KvSequence& sequence,
                                                    std::span<const TokenId> tokens) const {
  const auto page = static_cast<std::size_t>(sequence.committed_ / kPageTokens);
  const bool shareable = sequence.committed_ % kPageTokens == 0 && (page + 1) * kPageTokens < tokens.size();
  if (!config_.prefix_cache || !shareable) return std::nullopt;
  const PageId parent = parent_of(sequence, page);
  if (!may_follow(parent)) return std::nullopt;
  return tree_.hash_after(parent, sequence.salt_, page_tokens(tokens, page));
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
    const PageId parent = parent_of(sequence, page);
    if (!may_follow(parent)) return;
    const auto block = page_tokens(tokens, page);
    const std::uint64_t hash = tree_.hash_after(parent, sequence.salt_, block);
    if (const PageId twin = tree_.find(parent, sequence.salt_, block, hash); twin >= 0) {
      hold(twin);
      const auto index = static_cast<std::int32_t>(page);
      if (index >= sequence.window_first_ && index < sequence.window_end_) share_window(own, twin);
      release(std::exchange(own, twin));
    } else {
      drop_begun(parent, sequence.salt_, block);
      tree_.enter(own, parent, sequence.salt_, block, hash);
      if (config_.list_entered) entered_.push_back({own, tree_.entry(own)});
    }
  }
}

void KvPool::close(KvSequence&& sequence) {
  KvSequence closed = std::move(sequence);
  release_window(closed, closed.window_first_, closed.window_end_, false);
  const auto held = std::span(closed.pages_).subspan(static_cast<std::size_t>(closed.passed_));
  for (auto page = held.rbegin(); page != held.rend(); ++page) release(*page);
  if (closed.passed_ == 0 || held.empty() || !tree_.contains(held.front())) return;
  // What it passed was used as lately as the rest, and is of no use without it nor it without that.
  for (PageId page = tree_.parent(held.front()); page >= 0; page = tree_.parent(page)) {
    if (at(page).holders > 0) continue;
    unlink(page);
    link_newest(page);
  }
}

void KvPool::release_passed(KvSequence& sequence) {
  if (has_layer_window()) return pass_window(sequence);
  if (config_.window == 0) return;
  // The last full page stays: the next one's place in the tree is behind it.
  const std::int32_t end = std::min((sequence.committed_ + 1 - config_.window) / kPageTokens,
                                    sequence.committed_ / kPageTokens - 1);
  for (std::int32_t page = end; page-- > sequence.passed_;) {
    release(std::exchange(sequence.pages_[static_cast<std::size_t>(page)], -1));
    ++passed_;
  }
  sequence.passed_ = std::max(sequence.passed_, end);
}

void KvPool::drop_cache() {
  while (oldest_ >= 0) free_page(drop_oldest(DroppedPages::Cause::kNone));
}

KvPoolStats KvPool::stats() const {
  return {.total = config_.num_pages,
          .free = num_free(),
          .held = config_.num_pages - available(),
          .cached = cached_,
          .entries = entries_,
          .prefix_queries = prefix_queries_,
          .prefix_hits = prefix_hits_,
          .evictions = evictions_,
          .expirations = expirations_,
          .passed = passed_,
          .window_total = places_.total(),
          .window_held = places_.held(),
          .window_idle = places_.idle(),
          .window_passed = window_passed_,
          .window_evictions = places_.evictions(),
          .misses = misses_,
          .recent_misses = recent_misses_,
          .oldest = oldest_ >= 0 ? now_ - at(oldest_).since : Duration{},
          .reused_ages = reused_ages_,
          .evicted_ages = evicted_ages_};
}

char KvPool::state(PageId page) const {
  const std::int32_t holders = at(page).holders;
  if (holders > 0) return holders > 1 ? 's' : 'u';
  return tree_.contains(page) ? 'c' : 'f';
}

PageId KvPool::take_page() {
  PageId page = -1;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = drop_oldest(DroppedPages::Cause::kEvicted);
    places_.drop(page);
    keep_few_entries();
  }
  at(page).holders = 1;
  return page;
}

void KvPool::hold(PageId page) {
  if (at(page).holders++ > 0) return;
  reused_ages_.add(to_seconds(now_ - at(page).since));
  unlink(page);
}

void KvPool::release(PageId page) {
  if (--at(page).holders > 0) return;
  if (!tree_.contains(page)) return free_page(page);
  link_newest(page);
  keep_few_entries();
}

// More than one at a time only with a window, where a page may end as an entry because what followed it left.
void KvPool::keep_few_entries() {
  while (entries_ > config_.max_entries) {
    free_page(drop_oldest(DroppedPages::Cause::kEvicted));
  }
}

void KvPool::link_newest(PageId page) {
  at(page).older = newest_;
  at(page).newer = -1;
  at(page).since = now_;
  (newest_ >= 0 ? at(newest_).newer : oldest_) = page;
  newest_ = page;
  ++cached_;
  if (!tree_.has_children(page)) ++entries_;
}

void KvPool::unlink(PageId page) {
  const Page& entry = at(page);
  (entry.older >= 0 ? at(entry.older).newer : oldest_) = entry.newer;
  (entry.newer >= 0 ? at(entry.newer).older : newest_) = entry.older;
  --cached_;
  if (!tree_.has_children(page)) --entries_;
}

// Takes the least recently used cached page out of the cache.
PageId KvPool::drop_oldest(DroppedPages::Cause cause) {
  const PageId page = oldest_;
  drop_below(page, cause);
  leave_tree(page, cause);
  return page;
}

// Whatever follows the page in the tree cannot be found without it: cached pages become free, and what is
// held belongs to its sequences alone. Only a window makes that happen.
void KvPool::drop_below(PageId root, DroppedPages::Cause cause) {
  PageId page = root;
  while (true) {
    while (tree_.has_children(page)) page = tree_.newest_child(page);
    if (page == root) return;
    const PageId parent = tree_.parent(page);
    leave_tree(page, cause);
    if (at(page).holders == 0) free_page(page);
    page = parent;
  }
}

void KvPool::leave_tree(PageId page, DroppedPages::Cause cause) {
  const PageId parent = tree_.parent(page);
  dropped_.add(tree_.hash(page), cause);
  if (at(page).holders == 0) {
    if (cause == DroppedPages::Cause::kEvicted) evicted_ages_.add(to_seconds(now_ - at(page).since));
    evictions_ += cause == DroppedPages::Cause::kEvicted ? 1 : 0;
    expirations_ += cause == DroppedPages::Cause::kExpired ? 1 : 0;
    unlink(page);
  }
  tree_.leave(page);
  if (parent >= 0 && at(parent).holders == 0 && !tree_.has_children(parent)) ++entries_;
}

}  // namespace mlxs
