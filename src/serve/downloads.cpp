#include "serve/downloads.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"

namespace mlxs {

struct Downloads::Download {
  std::mutex mutex;
  PullProgress progress;
  std::uint64_t version = 0;  // of progress
  bool done = false;
  std::optional<Error> error;
  int watchers = 0;
  int next_number = 0;
  bool stopping = false;
  std::map<int, std::function<void()>> wakes;  // by the watcher's number

  // With the lock; called without it.
  std::vector<std::function<void()>> take_wakes() {
    std::vector<std::function<void()>> taken;
    for (auto& [number, wake] : wakes) taken.push_back(std::move(wake));
    wakes.clear();
    return taken;
  }

  void report(const PullProgress& news) {
    std::vector<std::function<void()>> woken;
    {
      const std::lock_guard lock(mutex);
      if (stopping)
        throw Error(ErrorCode::kCancelled, "the download was stopped",
                    "ask again: from a hub it goes on where it stopped, else it begins anew");
      const bool same = news.stage == progress.stage && news.done_bytes == progress.done_bytes &&
                        news.total_bytes == progress.total_bytes;
      if (same && version > 0) return;
      progress = news;
      ++version;
      woken = take_wakes();
    }
    for (const auto& wake : woken) wake();
  }

  void end(std::optional<Error> why) {
    std::vector<std::function<void()>> woken;
    {
      const std::lock_guard lock(mutex);
      done = true;
      error = std::move(why);
      woken = take_wakes();
    }
    for (const auto& wake : woken) wake();
  }
};

Downloads::~Downloads() {
  const std::lock_guard lock(mutex_);
  for (auto& [name, running] : running_) {
    const std::lock_guard inner(running.download->mutex);
    running.download->stopping = true;
  }
  for (auto& [name, running] : running_) running.thread.join();
}

// Under mutex_: forgets those that ended.
void Downloads::reap() {
  for (auto it = running_.begin(); it != running_.end();) {
    {
      const std::lock_guard lock(it->second.download->mutex);
      if (!it->second.download->done) {
        ++it;
        continue;
      }
    }
    it->second.thread.join();
    it = running_.erase(it);
  }
}

std::unique_ptr<Downloads::Watch> Downloads::watch(const std::string& name) {
  const std::lock_guard lock(mutex_);
  reap();
  if (const auto found = running_.find(name); found != running_.end()) {
    const std::lock_guard inner(found->second.download->mutex);
    if (!found->second.download->stopping) {
      ++found->second.download->watchers;
      return std::unique_ptr<Watch>(new Watch(found->second.download));
    }
    throw Error(ErrorCode::kOverloaded, fmt::format("a download of '{}' is just being stopped", name),
                "try again in a moment");
  }
  if (running_.size() >= kMostAtOnce) {
    throw Error(ErrorCode::kOverloaded, fmt::format("{} downloads are running", running_.size()),
                "wait until one is complete");
  }
  auto download = std::make_shared<Download>();
  download->watchers = 1;
  std::unique_ptr<Watch> watch(new Watch(download));
  std::thread thread([pull = pull_, name, download] {
    std::optional<Error> error;
    try {
      pull(name, [&](const PullProgress& progress) { download->report(progress); });
      log::info("{}: downloaded", name);
    } catch (const Error& failure) {
      error = failure;
    } catch (const std::exception& failure) {
      error.emplace(ErrorCode::kInternal, fmt::format("the download failed: {}", failure.what()));
    }
    if (error) log::warn("{}: {}", name, error->full());
    download->end(std::move(error));
  });
  running_.emplace(name, Running{std::move(download), std::move(thread)});
  return watch;
}

Downloads::Watch::Watch(std::shared_ptr<Download> download)
    : download_(std::move(download)), number_(download_->next_number++) {}

Downloads::Watch::~Watch() {
  const std::lock_guard lock(download_->mutex);
  download_->wakes.erase(number_);
  if (--download_->watchers == 0) download_->stopping = true;
}

Downloads::News Downloads::Watch::take() {
  const std::lock_guard lock(download_->mutex);
  News news{.progress = std::nullopt, .done = download_->done, .error = download_->error};
  if (std::exchange(seen_, download_->version) != download_->version) news.progress = download_->progress;
  return news;
}

void Downloads::Watch::notify_when_ready(std::function<void()> wake) {
  {
    const std::lock_guard lock(download_->mutex);
    if (!download_->done && seen_ == download_->version) {
      download_->wakes[number_] = std::move(wake);
      return;
    }
  }
  wake();
}

}  // namespace mlxs
