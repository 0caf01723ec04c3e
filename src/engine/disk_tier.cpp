#include "engine/disk_tier.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

// Copied between two steps at most: 3 ms at 10 GB/s, in which nobody gets a token.
constexpr std::size_t kBytesAStep = std::size_t{32} << 20;
constexpr auto kIdleWait = std::chrono::milliseconds(2);  // what a request that arrives then waits longer

}  // namespace

DiskTier::DiskTier(std::shared_ptr<PageStore> store, KvPool& pool, KvStore& kv, std::string kind)
    : store_(std::move(store)),
      pool_(pool),
      kv_(kv),
      kind_(std::move(kind)),
      names_(static_cast<std::size_t>(pool.stats().total)) {
  if (kv.page_bytes() == 0) {
    throw Error(ErrorCode::kInvalidArgument, "this backend's KV cache cannot be saved",
                "leave out --prefix-cache-dir, or use --backend cpu", "prefix_cache_dir");
  }
}

bool DiskTier::fetch(std::span<const TokenId> tokens, std::uint64_t salt, std::function<void(Fetched)> done) {
  const std::vector<PageName> names = page_names(root_name(kind_, salt), tokens);
  store_->touch(names);
  const auto first = static_cast<std::size_t>(pool_.peek_prefix(tokens, salt).tokens / kPageTokens);
  const std::size_t present = store_->count_present(names);
  if (present <= first) return false;
  store_->get({names.begin() + static_cast<std::ptrdiff_t>(first),
               names.begin() + static_cast<std::ptrdiff_t>(present)},
              [first, done = std::move(done)](std::vector<PageBytes> pages) {
                done({.first = first, .pages = std::move(pages)});
              });
  return true;
}

void DiskTier::install(std::span<const TokenId> tokens, std::uint64_t salt, const Fetched& fetched) {
  KvSequence sequence = pool_.open_uncounted(tokens, salt);
  auto page = static_cast<std::size_t>(sequence.committed_tokens() / kPageTokens);
  const std::size_t room = page + static_cast<std::size_t>(pool_.available());
  const std::size_t end = std::min(fetched.first + fetched.pages.size(), room);
  if (page >= fetched.first && page < end &&
      pool_.reserve(sequence, static_cast<std::int32_t>(end * kPageTokens))) {
    for (; page < end; ++page) {
      const PageBytes& bytes = fetched.pages[page - fetched.first];
      if (bytes.size() != kv_.page_bytes()) break;
      kv_.write_page(sequence.pages()[page], -1, bytes);
      pool_.commit(sequence, tokens, static_cast<std::int32_t>((page + 1) * kPageTokens));
      ++restored_;
    }
  }
  pool_.close(std::move(sequence));
}

// Names every page that entered the tree. Parents enter before their children, so theirs are known.
void DiskTier::collect() {
  pool_.take_entered(entered_);
  for (const TreePage& entered : entered_) {
    if (!pool_.is_current(entered)) continue;
    const PrefixTree& tree = pool_.tree();
    const PageId parent = tree.parent(entered.page);
    const PageName before =
        parent < 0 ? root_name(kind_, tree.salt(entered.page)) : names_[static_cast<std::size_t>(parent)];
    PageName& name = names_[static_cast<std::size_t>(entered.page)];
    name = next_name(before, tree.tokens(entered.page));
    if (!store_->contains(name)) unsaved_.push_back(entered);
  }
  if (unsaved_.size() > names_.size()) {
    std::erase_if(unsaved_, [this](const TreePage& page) { return !pool_.is_current(page); });
  }
}

bool DiskTier::save(bool idle) {
  collect();
  std::size_t copied = 0;
  while (!unsaved_.empty() && copied < kBytesAStep) {
    if (!store_->has_room()) {
      if (idle) store_->wait_for_room(kIdleWait);
      break;
    }
    const TreePage next = unsaved_.front();
    unsaved_.pop_front();
    if (!pool_.is_current(next)) continue;
    PageBytes bytes(kv_.page_bytes());
    kv_.read_page(next.page, -1, bytes);
    copied += bytes.size();
    store_->put(names_[static_cast<std::size_t>(next.page)], std::move(bytes), saved_);
  }
  return !unsaved_.empty();
}

void DiskTier::forget(std::span<const TokenId> tokens, std::uint64_t salt) {
  store_->remove(page_names(root_name(kind_, salt), tokens));
}

DiskTierStats DiskTier::stats() const {
  return {.saved_pages = *saved_, .restored_pages = restored_, .store = store_->stats()};
}

}  // namespace mlxs
