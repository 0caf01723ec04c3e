// Pages of KV in a folder: the disk tier of the prefix cache. A file a page, checksummed, named by what the
// page is, renamed into place when whole: a process killed at any moment leaves whole files and rubbish that
// the next start deletes. A thread of its own reads and writes; the least recently used files go when the
// folder is full. Methods are for any thread and never wait for the disk. The constructor throws kIo; later
// trouble with the disk is counted, logged once, and costs nothing but hits.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "kv/page_name.h"

namespace mlxs {

using PageBytes = std::vector<std::byte>;

struct PageStoreStats {
  std::uint64_t files = 0, bytes = 0;            // in the folder
  std::uint64_t written = 0, read = 0;           // pages
  std::uint64_t deleted = 0;                     // to make room
  std::uint64_t damaged = 0, failed_writes = 0;  // files that were no whole page; pages that were not written
};

class PageStore {
 public:
  // Makes the folder if need be, for this user only, and keeps other processes out of it. max_bytes: of all
  // files together.
  PageStore(std::filesystem::path folder, std::uint64_t max_bytes);
  ~PageStore();  // when everything that was put is written
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  // Of these pages, which follow one another, how many from the first on are there.
  std::size_t count_present(std::span<const PageName> names) const;
  bool contains(const PageName& name) const;
  // Marks them as used now, the first one last: a page that others follow goes after them.
  void touch(std::span<const PageName> names);

  // False: too much waits to be written already, or none of its size will ever fit. Does nothing for a page
  // that is there. written: counts up once the page is on disk.
  using Count = std::shared_ptr<std::atomic<std::uint64_t>>;
  bool put(const PageName& name, PageBytes bytes, Count written = nullptr);
  // Also of what waits to be written. Whoever reads at the same moment may still get them.
  void remove(std::vector<PageName> names);
  bool has_room() const;  // for put() to take another page
  void wait_for_room(std::chrono::milliseconds at_most) const;

  // Reads the pages in order, up to the first that is missing or damaged, and hands them to `done` on the
  // store's thread. Not called if the store is destroyed before.
  void get(std::vector<PageName> names, std::function<void(std::vector<PageBytes>)> done);

  PageStoreStats stats() const;

 private:
  struct Entry {
    std::uint64_t bytes = 0;
    std::list<PageName>::iterator place;  // in order of use
  };
  struct Write {
    PageName name;
    PageBytes bytes;  // none: to be removed
    Count written;    // may be null
  };
  struct Read {
    std::vector<PageName> names;
    std::function<void(std::vector<PageBytes>)> done;
  };
  using Lock = std::unique_lock<std::mutex>;

  void lock_folder();
  void scan();
  std::filesystem::path path_of(const PageName& name) const;
  void run();
  void write(const Write& page);
  void erase(const PageName& name);
  std::vector<PageBytes> read(std::span<const PageName> names);
  void insert(const PageName& name, std::uint64_t bytes);  // locked
  void forget(const PageName& name);                       // locked
  std::vector<PageName> make_room(std::uint64_t bytes);    // locked; the files to delete

  const std::filesystem::path folder_;
  const std::uint64_t max_bytes_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::unordered_map<PageName, Entry> index_;
  std::list<PageName> order_;            // least recently used first
  std::deque<Write> writes_;             // in order
  std::unordered_set<PageName> queued_;  // names in writes_, and the one being written
  std::size_t queued_bytes_ = 0;
  std::deque<Read> reads_;
  PageStoreStats stats_;
  bool stopping_ = false;
  int lock_ = -1;            // descriptor of the folder's lock
  bool complained_ = false;  // the thread's
  std::thread thread_;
};

}  // namespace mlxs
