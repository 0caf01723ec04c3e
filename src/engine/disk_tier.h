// The disk tier of one model's prefix cache: gives its full pages to the PageStore as they are computed, and
// brings back those that a prompt needs and the pool has lost. Engine thread, between steps, but for what it
// says of callbacks. Refers to the model's pool and KV tensors. Trouble with the disk costs hits, never a
// request.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/ops.h"
#include "kv/kv_pool.h"
#include "kv/page_store.h"

namespace mlxs {

struct DiskTierStats {
  std::uint64_t saved_pages = 0, restored_pages = 0;  // of this model, written and brought back
  PageStoreStats store;                               // of all models
};

class DiskTier {
 public:
  // kind: what pages of this model can only be used with: model, layout, shapes; all layers are in them.
  // Throws kInvalidArgument if the backend does not give pages out.
  DiskTier(std::shared_ptr<PageStore> store, KvPool& pool, KvStore& kv, std::string kind);

  // Pages that follow each other, as they were read; first: how many pages of the prompt come before them.
  struct Fetched {
    std::size_t first = 0;
    std::vector<PageBytes> pages;
  };
  // Begins to read what the pool lacks of this prompt; false if the store has nothing of it. `done` runs on
  // the store's thread, and not at all if the store ends before.
  bool fetch(std::span<const TokenId> tokens, std::uint64_t salt, std::function<void(Fetched)> done);
  // Puts them into the pool, as far as it has pages left for them.
  void install(std::span<const TokenId> tokens, std::uint64_t salt, const Fetched& fetched);

  // Copies full pages that are new to the store, as many as it takes and a step may spend time on; a model
  // that has nothing else to do may wait a little. True: there are more.
  bool save(bool idle);

  // What a broken request computed must not come back.
  void forget(std::span<const TokenId> tokens, std::uint64_t salt);

  DiskTierStats stats() const;  // any thread: pages are written when the engine is idle, too

 private:
  void collect();

  std::shared_ptr<PageStore> store_;
  KvPool& pool_;
  KvStore& kv_;
  std::string kind_;
  std::vector<PageName> names_;    // of the pages in the tree
  std::vector<TreePage> entered_;  // reused
  std::deque<TreePage> unsaved_;   // oldest first; some may have left the tree since
  const PageStore::Count saved_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  std::atomic<std::uint64_t> restored_{0};
};

}  // namespace mlxs
