// The pages whose KV is known, as a tree: a page's parent holds the 16 tokens before its own. Leaves may be
// begun only: their missing tokens are kNoToken. Found by chain hash, told apart by (salt, parent, tokens).
// Says nothing of who holds a page: that is KvPool's, which owns it. One thread; every call but
// closest_child() is O(1) expected; allocates only when made.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/types.h"
#include "kv/chain_hash.h"

namespace mlxs {

class PrefixTree {
 public:
  using PageTokens = std::span<const TokenId, kPageTokens>;
  static constexpr TokenId kNoToken = -1;

  explicit PrefixTree(std::int32_t num_pages);

  // parent: -1 at the start of a sequence.
  std::uint64_t hash_after(PageId parent, std::uint64_t salt, PageTokens tokens) const;
  PageId find(PageId parent, std::uint64_t salt, PageTokens tokens, std::uint64_t hash) const;  // -1: none
  void enter(PageId page, PageId parent, std::uint64_t salt, PageTokens tokens, std::uint64_t hash);
  void leave(PageId page);  // which has no children

  bool contains(PageId page) const { return at(page).entry != 0; }
  bool has_children(PageId page) const { return at(page).first_child >= 0; }
  PageId newest_child(PageId page) const { return at(page).first_child; }  // -1: none
  // Tells one stay in the tree from the next: rises with every page that enters; 0 outside.
  std::uint64_t entry(PageId page) const { return at(page).entry; }
  // Of pages inside.
  PageId parent(PageId page) const { return at(page).parent; }
  std::uint64_t salt(PageId page) const { return at(page).salt; }
  std::uint64_t hash(PageId page) const { return at(page).hash; }
  PageTokens tokens(PageId page) const { return at(page).tokens; }
  bool ends_after(PageId page, std::int32_t count) const {  // begun, and no token is known from there on
    return count < kPageTokens && at(page).tokens[static_cast<std::size_t>(count)] == kNoToken;
  }

  // The child that shares the most first tokens with `tokens`, and how many; -1: there is no child.
  // Looks at the kMostCompared children that entered last.
  struct Closest {
    PageId page = -1;
    std::int32_t common = -1;
  };
  Closest closest_child(PageId parent, std::uint64_t salt, PageTokens tokens) const;
  static constexpr int kMostCompared = 64;

  void check(PageId page) const;  // of a page inside; throws kInternal that names what is wrong

 private:
  struct Node {
    std::uint64_t entry = 0;
    PageId parent = -1;
    PageId first_child = -1, older_sibling = -1, newer_sibling = -1;
    PageId next_in_bucket = -1;
    std::uint64_t salt = 0;
    std::uint64_t hash = 0;  // of the chain from the start
    std::array<TokenId, kPageTokens> tokens{};
  };
  Node& at(PageId page) { return nodes_[static_cast<std::size_t>(page)]; }
  const Node& at(PageId page) const { return nodes_[static_cast<std::size_t>(page)]; }
  PageId& bucket(std::uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  PageId& first_child(PageId parent) { return parent < 0 ? first_root_ : at(parent).first_child; }

  std::vector<Node> nodes_;
  std::vector<PageId> buckets_;  // heads of the index's chains; a power of two of them
  std::uint64_t entries_ = 0;
  PageId first_root_ = -1;  // the newest page without a parent, of any salt
};

}  // namespace mlxs
