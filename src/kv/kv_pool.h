// KV pages of one model as numbers: who holds which page, which pages keep a reusable prefix, what is evicted
// next. No tensors, no threads, and its time comes from advance(): the engine thread owns it; deterministic.
// Pages hold kPageTokens tokens. Every page is exactly one of free, held (by ≥ 1 sequence) or cached (held by
// none, prefix kept); check() proves it. Costs O(pages touched), allocates nothing but a sequence's page
// table. Misuse throws kInternal.
//
// With a window (every layer's attention sees so many tokens back) a sequence gives up the pages that no
// later token of it sees, so that who holds a page may no longer hold those before it. They stay cached for
// others that begin alike; where one is evicted, what follows it leaves the tree, too.
//
// With a layer window (some layers see so many tokens back, the others everything) a page is kept as long as
// its sequence, and its part of the layers with a window only as long as a later row sees it: see
// WindowPlaces. A prefix is found as far as those parts are there that its next token sees.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "kv/dropped_pages.h"
#include "kv/prefix_tree.h"
#include "kv/window_places.h"
#include "mlxs/page_ages.h"

namespace mlxs {

struct KvPoolConfig {
  std::int32_t num_pages = 0;  // ≥ 1, else kInvalidArgument
  bool prefix_cache = true;
  bool list_entered = false;  // for take_entered(), which must then be called
  // Tokens that a token's attention sees at most, itself included, in every layer; 0: some see all. ≥ 0.
  std::int32_t window = 0;
  // The same in some of the layers, where others see all, and the pages whose part of those layers is kept.
  // Not beside a window; both or none.
  std::int32_t layer_window = 0, num_window_pages = 0;
  Duration ttl = Duration::max();  // cached pages unused for so long become free
  // Prompts in the cache, counted as the cached pages that none follows; more push out the least recently
  // used. ≥ 1, else kInvalidArgument.
  std::int32_t max_entries = std::numeric_limits<std::int32_t>::max();
};

// Why open() did not find all that it could have used. The first reason that holds, in this order.
enum class MissReason : std::uint8_t {
  kNone,      // it found every full page
  kEvicted,   // the page was there and made room for others
  kExpired,   // the page was there, unused for longer than the ttl
  kDiverged,  // other prompts share the beginning and go on differently
  kNew,       // nothing like it is known
  kWindow,    // the page is there, but not its part of the layers with a window
};
inline constexpr std::size_t kMissReasons = 6;

struct PrefixMiss {
  MissReason reason = MissReason::kNone;
  std::int32_t token = 0;  // position of the first token that was not found: where the prompts part, if
                           // kDiverged, else the first of the missing page
  bool operator==(const PrefixMiss&) const = default;
};

struct KvPoolStats {
  std::int32_t total = 0, free = 0, held = 0, cached = 0;  // pages
  std::int32_t entries = 0;
  std::uint64_t prefix_queries = 0, prefix_hits = 0;  // tokens asked for, tokens found
  std::uint64_t evictions = 0, expirations = 0;       // cached pages given up
  std::uint64_t passed = 0;                           // pages that their sequence's window left behind
  std::int32_t window_total = 0, window_held = 0, window_idle = 0;  // places of the layers with a window
  std::uint64_t window_passed = 0, window_evictions = 0;  // by their sequence; idle, taken for others
  std::array<std::uint64_t, kMissReasons> misses{};       // calls of open(), by MissReason
  std::array<PrefixMiss, 8> recent_misses{};              // newest first; kNone: no more
  Duration oldest{};                   // since the least recently used cached page was used
  PageAges reused_ages, evicted_ages;  // of cached pages that were found, or taken for others
};

// A page for as long as it keeps its place in the prefix tree.
struct TreePage {
  PageId page = -1;
  std::uint64_t entry = 0;
};

struct PrefixHit {
  std::int32_t tokens = 0;  // reusable
  std::int32_t cached_pages =
      0;  // of their pages, those that no sequence holds: reusing them lowers available()
};

// One sequence's pages. Made by KvPool::open(), ended by KvPool::close(); movable value, never copied.
// Full committed pages may be shared; a page with positions yet to be written has one holder.
class KvSequence {
 public:
  KvSequence() = default;
  KvSequence(KvSequence&& other) noexcept
      : pages_(std::move(other.pages_)),
        committed_(std::exchange(other.committed_, 0)),
        passed_(std::exchange(other.passed_, 0)),
        window_first_(std::exchange(other.window_first_, 0)),
        window_end_(std::exchange(other.window_end_, 0)),
        matched_(std::exchange(other.matched_, 0)),
        asked_(std::exchange(other.asked_, 0)),
        salt_(std::exchange(other.salt_, 0)),
        miss_(std::exchange(other.miss_, {})) {}
  KvSequence& operator=(KvSequence&& other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(committed_, other.committed_);
    std::swap(passed_, other.passed_);
    std::swap(window_first_, other.window_first_);
    std::swap(window_end_, other.window_end_);
    std::swap(matched_, other.matched_);
    std::swap(asked_, other.asked_);
    std::swap(salt_, other.salt_);
    std::swap(miss_, other.miss_);
    return *this;
  }

  std::span<const PageId> pages() const { return pages_; }  // -1: passed, none is held
  std::int32_t passed() const { return passed_; }           // of them, the first ones
  // Of pages(), those whose window places it holds: [window_first, window_end).
  std::int32_t window_first() const { return window_first_; }
  std::int32_t window_end() const { return window_end_; }
  std::span<const PageId> window_held() const {
    return pages().subspan(static_cast<std::size_t>(window_first_),
                           static_cast<std::size_t>(window_end_ - window_first_));
  }
  // Tokens whose KV is computed and known to the pool.
  std::int32_t committed_tokens() const { return committed_; }
  PrefixMiss miss() const { return miss_; }  // of its open()

 private:
  friend class KvPool;
  std::vector<PageId> pages_;
  std::int32_t committed_ = 0;
  std::int32_t passed_ = 0;
  std::int32_t window_first_ = 0, window_end_ = 0;
  std::int32_t matched_ = 0;  // pages that were in the tree when it came, whether their windows were or not
  std::int32_t asked_ = 0;    // whole pages of what it was opened for
  std::uint64_t salt_ = 0;
  PrefixMiss miss_;
};

class KvPool {
 public:
  explicit KvPool(KvPoolConfig config);

  // What the time is, for everything until the next call; what is too old goes. Never backwards.
  void advance(TimePoint now);

  // A sequence that shares every full page of `tokens` that the cache holds (longest common prefix, at most
  // tokens.size() - 1 tokens, so that at least one row is computed). The hit is committed_tokens(). `salt`
  // separates caches (tenant, adapter); equal tokens under different salts never share.
  KvSequence open(std::span<const TokenId> tokens, std::uint64_t salt = 0);
  // The same, for who fills the cache: no statistics know of it.
  KvSequence open_uncounted(std::span<const TokenId> tokens, std::uint64_t salt);
  // What open() would reuse; changes nothing.
  PrefixHit peek_prefix(std::span<const TokenId> tokens, std::uint64_t salt = 0) const;
  // Like open() for a sequence that waits at a page boundary: takes over pages that others committed since,
  // in place of its own. Returns the tokens gained.
  std::int32_t extend_prefix(KvSequence& sequence, std::span<const TokenId> tokens);
  // Chain hash of the full page that the sequence computes next, equal for sequences about to compute the
  // same one; nullopt if extend_prefix() could not hand that page over afterwards.
  std::optional<std::uint64_t> next_page_hash(const KvSequence& sequence,
                                              std::span<const TokenId> tokens) const;

  // Hash of tokens[0, end) where the last page of them is begun and not full; nullopt if it is full, holds
  // less than kLeastTail tokens or its place in the tree is unknown. The sequence must hold the page before
  // it.
  std::optional<std::uint64_t> tail_hash(const KvSequence& sequence, std::span<const TokenId> tokens,
                                         std::int32_t end) const;
  static constexpr std::int32_t kLeastTail = 4;

  // Before close(): the last page, where it is begun and not full, stays cached, too. `tokens`: the
  // sequence's. Not with a window, nor where the tree holds as much already.
  void keep_tail(const KvSequence& sequence, std::span<const TokenId> tokens);
  // A page in the tree that begins as the last one of `tokens`, which is all the sequence has left: a copy of
  // it spares computing `tokens` ≥ kLeastTail of them, never the last. Counts as a use of it.
  struct BegunPage {
    PageId page = -1;
    std::int32_t tokens = 0;
  };
  std::optional<BegunPage> closest_page(const KvSequence& sequence, std::span<const TokenId> tokens);

  // Grows to hold `tokens` tokens. False (and no change) if free + cached pages do not suffice.
  bool reserve(KvSequence& sequence, std::int32_t tokens);
  // KV of tokens[0, count) is now computed: full pages enter the prefix tree. tokens: the sequence's tokens
  // from its start. A page that another sequence computed too is given up for the one in the tree: sequences
  // that share a prefix end up sharing its pages, and a page in the tree is never held without the pages
  // before it.
  void commit(KvSequence& sequence, std::span<const TokenId> tokens, std::int32_t count);
  // Gives up the pages that the window left behind. At a time of the caller's choice: not while a step that
  // reads them is planned.
  void release_passed(KvSequence& sequence);
  // Window places for all that rows from position `start` on see and write, up to `end` tokens, for which
  // pages are reserved; what it held and they do not see is given up if there is a gap. False: too few are
  // left, and it has some of them. Nothing to do without a layer window.
  bool reserve_window(KvSequence& sequence, std::int32_t start, std::int32_t end);
  // Of those places, the ones behind what is committed: the step that they were for does not happen.
  void give_back_window(KvSequence& sequence);
  bool has_layer_window() const { return config_.layer_window > 0; }
  PageId window_place(PageId page) const { return places_.of(page); }  // -1: none
  const WindowPlaces& window_places() const { return places_; }
  std::int64_t window_places_for(std::int64_t sequences, std::int64_t tokens) const {
    return WindowPlaces::enough(config_.layer_window, sequences, tokens);
  }
  // The first page that rows from position `tokens` on see in the layers with a window.
  std::int32_t first_seen(std::int32_t tokens) const {
    return WindowPlaces::first_seen(tokens, config_.layer_window);
  }
  // Gives the pages back; full committed pages stay cached until evicted (least recently used, leaves first).
  void close(KvSequence&& sequence);
  void drop_cache();  // every cached page becomes free

  // The pages that entered the tree since the last call, parents before children, instead of what `out` held.
  void take_entered(std::vector<TreePage>& out);
  bool is_current(const TreePage& page) const { return tree_.entry(page.page) == page.entry; }
  const PrefixTree& tree() const { return tree_; }

  std::int32_t available() const { return num_free() + cached_; }
  // 's' held by several sequences, 'u' by one, 'c' cached, 'f' free.
  char state(PageId page) const;
  std::int32_t holders(PageId page) const { return pages_[static_cast<std::size_t>(page)].holders; }
  KvPoolStats stats() const;
  static constexpr std::int32_t pages_for(std::int32_t tokens) {
    return tokens / kPageTokens + (tokens % kPageTokens != 0 ? 1 : 0);
  }
  // Throws kInternal that names the broken invariant. O(pages).
  void check() const;

 private:
  struct Page {
    std::int32_t holders = 0;
    // While cached: neighbours in order of use, -1 at the ends, and since when.
    PageId older = -1, newer = -1;
    TimePoint since{};
  };

  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  std::int32_t num_free() const { return static_cast<std::int32_t>(free_.size()); }

  class WholePrefix;
  void release_window(const KvSequence& sequence, std::int32_t begin, std::int32_t end, bool passed);
  void pass_window(KvSequence& sequence);
  void share_window(PageId own, PageId twin);
  void free_page(PageId page);
  PrefixMiss explain_miss(const KvSequence& sequence, std::span<const TokenId> tokens) const;
  PageId take_page();
  void hold(PageId page);
  void release(PageId page);
  void link_newest(PageId page);
  void unlink(PageId page);
  PageId drop_oldest(DroppedPages::Cause cause);
  void keep_few_entries();
  void drop_below(PageId root, DroppedPages::Cause cause);
  void leave_tree(PageId page, DroppedPages::Cause cause);
  void drop_begun(PageId parent, std::uint64_t salt, PrefixTree::PageTokens full);
  static PageId parent_of(const KvSequence& sequence, std::size_t page) {  // -1: the root
    return page > 0 ? sequence.pages_[page - 1] : -1;
  }
  bool may_follow(PageId parent) const { return parent < 0 || tree_.contains(parent); }
  void check_order() const;

  KvPoolConfig config_;
  PrefixTree tree_;
  DroppedPages dropped_;
  WindowPlaces places_;
  std::vector<Page> pages_;
  std::vector<PageId> free_;
  std::vector<TreePage> entered_;
  std::vector<PageId> found_;         // reused
  PageId oldest_ = -1, newest_ = -1;  // ends of the cached pages' order of use
  TimePoint now_{};
  std::int32_t cached_ = 0;
  std::int32_t entries_ = 0;  // cached pages without children
  std::uint64_t prefix_queries_ = 0, prefix_hits_ = 0, evictions_ = 0, expirations_ = 0, passed_ = 0,
                window_passed_ = 0;
  std::array<std::uint64_t, kMissReasons> misses_{};
  std::array<PrefixMiss, 8> recent_misses_{};
  PageAges reused_ages_, evicted_ages_;
};

}  // namespace mlxs
