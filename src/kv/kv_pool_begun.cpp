// Pages of the pool that are begun and not full: leaves of the tree that are copied, never shared.
#include <algorithm>
#include <array>

#include "kv/kv_pool.h"

namespace mlxs {
namespace {

// The tokens of a page that is not full, up to tokens[end].
std::array<TokenId, kPageTokens> begun_page(std::span<const TokenId> tokens, std::int32_t end,
                                            TokenId missing) {
  std::array<TokenId, kPageTokens> block;
  block.fill(missing);
  const std::int32_t begin = end / kPageTokens * kPageTokens;
  std::ranges::copy(tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
                    block.begin());
  return block;
}

}  // namespace

std::optional<std::uint64_t> KvPool::tail_hash(const KvSequence& sequence, std::span<const TokenId> tokens,
                                               std::int32_t end) const {
  const std::int32_t page = end / kPageTokens;
  if (!config_.prefix_cache || end % kPageTokens < kLeastTail) return std::nullopt;
  const PageId parent = parent_of(sequence, static_cast<std::size_t>(page));
  if (page > 0 && (parent < 0 || !tree_.contains(parent))) return std::nullopt;
  std::uint64_t hash = mix64(parent < 0 ? chain_root(sequence.salt_) : tree_.hash(parent));
  for (std::int32_t i = page * kPageTokens; i < end; ++i)
    hash = mix64(hash ^ static_cast<std::uint32_t>(tokens[static_cast<std::size_t>(i)]));
  return hash;
}

void KvPool::keep_tail(const KvSequence& sequence, std::span<const TokenId> tokens) {
  const std::int32_t end = sequence.committed_, begun = end % kPageTokens;
  if (!config_.prefix_cache || config_.window > 0 || begun < kLeastTail) return;
  const auto page = static_cast<std::size_t>(end / kPageTokens);
  const PageId parent = parent_of(sequence, page);
  if (!may_follow(parent)) return;
  const auto block = begun_page(tokens, end, PrefixTree::kNoToken);
  const std::uint64_t hash = tree_.hash_after(parent, sequence.salt_, block);
  if (tree_.closest_child(parent, sequence.salt_, block).common >= begun ||
      tree_.find(parent, sequence.salt_, block, hash) >= 0) {
    return;
  }
  tree_.enter(sequence.pages_[page], parent, sequence.salt_, block, hash);
}

std::optional<KvPool::BegunPage> KvPool::closest_page(const KvSequence& sequence,
                                                      std::span<const TokenId> tokens) {
  const std::int32_t left = static_cast<std::int32_t>(tokens.size()) - sequence.committed_;
  if (!config_.prefix_cache || config_.window > 0 || sequence.committed_ % kPageTokens != 0 ||
      left > kPageTokens)
    return std::nullopt;
  const auto page = static_cast<std::size_t>(sequence.committed_ / kPageTokens);
  const PageId parent = parent_of(sequence, page);
  if (!may_follow(parent)) return std::nullopt;
  constexpr TokenId kUnlikeAny = PrefixTree::kNoToken - 1;
  const auto block = begun_page(tokens, static_cast<std::int32_t>(tokens.size()) - 1, kUnlikeAny);
  const auto [found, common] = tree_.closest_child(parent, sequence.salt_, block);
  if (common < kLeastTail || (has_layer_window() && places_.of(found) < 0)) return std::nullopt;
  hold(found);  // it is used as lately as what precedes it
  release(found);
  if (has_layer_window()) {
    places_.hold(found);
    places_.release(found, false);
  }
  return BegunPage{found, common};
}

// The begun page that the full one continues is of no more use.
void KvPool::drop_begun(PageId parent, std::uint64_t salt, PrefixTree::PageTokens full) {
  const auto [page, common] = tree_.closest_child(parent, salt, full);
  if (common < kLeastTail || !tree_.ends_after(page, common)) return;
  leave_tree(page, DroppedPages::Cause::kNone);
  free_page(page);
}

}  // namespace mlxs
