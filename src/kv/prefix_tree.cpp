#include "kv/prefix_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {

PrefixTree::PrefixTree(std::int32_t num_pages)
    : nodes_(static_cast<std::size_t>(num_pages)),
      buckets_(std::bit_ceil(static_cast<std::size_t>(num_pages)), -1) {}

std::uint64_t PrefixTree::hash_after(PageId parent, std::uint64_t salt, PageTokens tokens) const {
  return chain_hash(parent < 0 ? chain_root(salt) : at(parent).hash, tokens);
}

PageId PrefixTree::find(PageId parent, std::uint64_t salt, PageTokens tokens, std::uint64_t hash) const {
  PageId page = buckets_[hash & (buckets_.size() - 1)];
  for (; page >= 0; page = at(page).next_in_bucket) {
    const Node& candidate = at(page);
    if (candidate.hash == hash && candidate.parent == parent && candidate.salt == salt &&
        std::ranges::equal(candidate.tokens, tokens)) {
      break;
    }
  }
  return page;
}

void PrefixTree::enter(PageId page, PageId parent, std::uint64_t salt, PageTokens tokens,
                       std::uint64_t hash) {
  Node& node = at(page);
  node.entry = ++entries_;
  node.parent = parent;
  node.salt = salt;
  node.hash = hash;
  std::ranges::copy(tokens, node.tokens.begin());
  node.next_in_bucket = std::exchange(bucket(hash), page);
  node.newer_sibling = -1;
  node.older_sibling = std::exchange(first_child(parent), page);
  if (node.older_sibling >= 0) at(node.older_sibling).newer_sibling = page;
}

void PrefixTree::leave(PageId page) {
  Node& node = at(page);
  PageId* link = &bucket(node.hash);
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = node.next_in_bucket;
  (node.newer_sibling >= 0 ? at(node.newer_sibling).older_sibling : first_child(node.parent)) =
      node.older_sibling;
  if (node.older_sibling >= 0) at(node.older_sibling).newer_sibling = node.newer_sibling;
  node.entry = 0;
}

PrefixTree::Closest PrefixTree::closest_child(PageId parent, std::uint64_t salt, PageTokens tokens) const {
  Closest best;
  int compared = 0;
  PageId child = parent < 0 ? first_root_ : at(parent).first_child;
  for (; child >= 0 && compared < kMostCompared; child = at(child).older_sibling, ++compared) {
    if (at(child).salt != salt) continue;
    const auto differs = std::ranges::mismatch(at(child).tokens, tokens).in1;
    const auto common = static_cast<std::int32_t>(differs - at(child).tokens.begin());
    if (common > best.common) best = {child, common};
  }
  return best;
}

void PrefixTree::check(PageId page) const {
  const auto fail = [page](const char* what) {
    throw Error(ErrorCode::kInternal, fmt::format("prefix tree: page {} {}", page, what),
                "this is a bug; please report it");
  };
  const Node& node = at(page);
  if (node.entry == 0) fail("is checked and not inside");
  if (node.hash != hash_after(node.parent, node.salt, node.tokens) ||
      find(node.parent, node.salt, node.tokens, node.hash) != page) {
    fail("is inside and cannot be found");
  }
  if (node.parent >= 0 && (at(node.parent).entry == 0 || at(node.parent).salt != node.salt)) {
    fail("is inside without its parent");
  }
  const PageId head = node.parent < 0 ? first_root_ : at(node.parent).first_child;
  if (node.newer_sibling >= 0 ? at(node.newer_sibling).older_sibling != page : head != page) {
    fail("is not among its parent's children");
  }
  if (node.older_sibling >= 0 && at(node.older_sibling).newer_sibling != page) {
    fail("is not among its siblings");
  }
}

}  // namespace mlxs
