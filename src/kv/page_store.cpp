#include "kv/page_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "base/log.h"
#include "kv/page_file.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostQueuedBytes = std::size_t{64} << 20;  // of pages that wait to be written
constexpr const char* kSuffix = ".kv";

}  // namespace

PageStore::PageStore(fs::path folder, std::uint64_t max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (!error) fs::permissions(folder_, fs::perms::owner_all, error);  // prompts can be read out of it
  if (error) {
    throw Error(ErrorCode::kIo,
                fmt::format("the cache folder '{}' cannot be made: {}", folder_.string(), error.message()),
                "choose another with --prefix-cache-dir");
  }
  lock_folder();
  scan();
  thread_ = std::thread([this] { run(); });
}

PageStore::~PageStore() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  close(lock_);
}

void PageStore::lock_folder() {
  const fs::path path = folder_ / "lock";
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ >= 0 && flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
  const bool taken = lock_ >= 0 && errno == EWOULDBLOCK;
  const std::string why = taken ? "another process uses it" : std::strerror(errno);
  if (lock_ >= 0) close(lock_);
  throw Error(ErrorCode::kIo, fmt::format("the cache folder '{}' cannot be used: {}", folder_.string(), why),
              "give every server a --prefix-cache-dir of its own");
}

// What a former process left: whole files, by when they were used last, and the rubbish of its end.
void PageStore::scan() {
  std::vector<std::tuple<fs::file_time_type, PageName, std::uint64_t>> found;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->is_regular_file(error) || entry->path().parent_path() == folder_) continue;
    PageName name;
    if (entry->path().extension() == kSuffix && name.parse(entry->path().stem().string())) {
      found.emplace_back(entry->last_write_time(error), name, entry->file_size(error));
    } else {
      fs::remove(entry->path(), error);
    }
  }
  if (error) {
    throw Error(ErrorCode::kIo,
                fmt::format("the cache folder '{}' cannot be read: {}", folder_.string(), error.message()),
                "check its permissions, or choose another with --prefix-cache-dir");
  }
  std::ranges::sort(found);
  for (const auto& [time, name, bytes] : found) insert(name, bytes);
  for (const PageName& name : make_room(0)) fs::remove(path_of(name), error);
}

fs::path PageStore::path_of(const PageName& name) const {
  const std::string hex = name.hex();
  return folder_ / hex.substr(0, 2) / (hex + kSuffix);
}

std::size_t PageStore::count_present(std::span<const PageName> names) const {
  const Lock lock(mutex_);
  const auto missing =
      std::ranges::find_if(names, [&](const PageName& name) { return !index_.contains(name); });
  return static_cast<std::size_t>(missing - names.begin());
}

bool PageStore::contains(const PageName& name) const {
  const Lock lock(mutex_);
  return index_.contains(name);
}

void PageStore::touch(std::span<const PageName> names) {
  const Lock lock(mutex_);
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const auto found = index_.find(*name);
    if (found != index_.end()) order_.splice(order_.end(), order_, found->second.place);
  }
}

bool PageStore::has_room() const {
  const Lock lock(mutex_);
  return queued_bytes_ < kMostQueuedBytes;
}

void PageStore::wait_for_room(std::chrono::milliseconds at_most) const {
  Lock lock(mutex_);
  changed_.wait_for(lock, at_most, [&] { return queued_bytes_ < kMostQueuedBytes; });
}

bool PageStore::put(const PageName& name, PageBytes bytes, Count written) {
  {
    const Lock lock(mutex_);
    if (index_.contains(name) || queued_.contains(name)) return true;
    if (bytes.empty() || queued_bytes_ >= kMostQueuedBytes || page_file_bytes(bytes.size()) > max_bytes_)
      return false;
    queued_.insert(name);
    queued_bytes_ += bytes.size();
    writes_.push_back({name, std::move(bytes), std::move(written)});
  }
  changed_.notify_all();
  return true;
}

void PageStore::remove(std::vector<PageName> names) {
  {
    const Lock lock(mutex_);
    for (const PageName& name : names) {
      if (!index_.contains(name) && !queued_.contains(name)) continue;
      forget(name);
      writes_.push_back({name, {}, nullptr});
    }
  }
  changed_.notify_all();
}

void PageStore::get(std::vector<PageName> names, std::function<void(std::vector<PageBytes>)> done) {
  {
    const Lock lock(mutex_);
    reads_.push_back({std::move(names), std::move(done)});
  }
  changed_.notify_all();
}

PageStoreStats PageStore::stats() const {
  const Lock lock(mutex_);
  PageStoreStats stats = stats_;
  stats.files = index_.size();
  return stats;
}

// Reads first: somebody waits for them.
void PageStore::run() {
  Lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !reads_.empty() || !writes_.empty(); });
    if (!reads_.empty() && !stopping_) {
      const Read job = std::move(reads_.front());
      reads_.pop_front();
      lock.unlock();
      job.done(read(job.names));
      lock.lock();
    } else if (!writes_.empty()) {
      const Write next = std::move(writes_.front());
      writes_.pop_front();
      lock.unlock();
      next.bytes.empty() ? erase(next.name) : write(next);
      lock.lock();
      if (!next.bytes.empty()) queued_.erase(next.name);
      queued_bytes_ -= next.bytes.size();
      changed_.notify_all();
    } else if (stopping_) {
      return;
    }
  }
}

// Not synchronized to the disk: a process may be killed without losing what it wrote, and what a machine
// loses with its power fails the checksum.
void PageStore::write(const Write& page) {
  const auto& [name, bytes, written] = page;
  const fs::path path = path_of(name);
  fs::path temporary = path;
  temporary.replace_extension(".new");
  std::vector<PageName> old;
  {
    const Lock lock(mutex_);
    old = make_room(page_file_bytes(bytes.size()));
  }
  std::error_code error;
  for (const PageName& gone : old) fs::remove(path_of(gone), error);
  try {
    fs::create_directories(path.parent_path());
    write_page_file(temporary, name, bytes);
    fs::rename(temporary, path);
    const Lock lock(mutex_);
    insert(name, page_file_bytes(bytes.size()));
    ++stats_.written;
    if (written) ++*written;
  } catch (const std::exception& failure) {
    fs::remove(temporary, error);
    if (!std::exchange(complained_, true)) {
      log::warn("a page of the prefix cache was not saved, as others may not be: {}", failure.what());
    }
    const Lock lock(mutex_);
    ++stats_.failed_writes;
  }
}

void PageStore::erase(const PageName& name) {
  std::error_code error;
  fs::remove(path_of(name), error);
  const Lock lock(mutex_);
  forget(name);
}

std::vector<PageBytes> PageStore::read(std::span<const PageName> names) {
  std::vector<PageBytes> pages;
  std::error_code error;
  for (const PageName& name : names) {
    std::optional<PageBytes> page = read_page_file(path_of(name), name);
    if (!page) {
      fs::remove(path_of(name), error);
      const Lock lock(mutex_);
      forget(name);
      ++stats_.damaged;
      break;
    }
    pages.push_back(*std::move(page));
  }
  // The next start knows from the files' times what was used last.
  const auto now = fs::file_time_type::clock::now();
  for (std::size_t i = pages.size(); i-- > 0;) fs::last_write_time(path_of(names[i]), now, error);
  const Lock lock(mutex_);
  stats_.read += pages.size();
  return pages;
}

void PageStore::insert(const PageName& name, std::uint64_t bytes) {
  index_[name] = {bytes, order_.insert(order_.end(), name)};
  stats_.bytes += bytes;
}

void PageStore::forget(const PageName& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) return;
  stats_.bytes -= found->second.bytes;
  order_.erase(found->second.place);
  index_.erase(found);
}

std::vector<PageName> PageStore::make_room(std::uint64_t bytes) {
  std::vector<PageName> old;
  while (!order_.empty() && stats_.bytes + bytes > max_bytes_) {
    old.push_back(order_.front());
    forget(old.back());
    ++stats_.deleted;
  }
  return old;
}

}  // namespace mlxs
