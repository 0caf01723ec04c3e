// Models on their way to this disk: one thread each, whoever asks for the same one watches the same download.
// A download that nobody watches any more is stopped; the next one goes on where a hub's stopped, and begins
// an alias's anew. Any thread; the destructor stops all and waits for them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "formats/catalog.h"
#include "mlxs/error.h"

namespace mlxs {

class Downloads {
 public:
  // Fetches by name, as Catalog::pull does; stops if `progress` throws.
  using Pull =
      std::function<void(const std::string& name, const std::function<void(const PullProgress&)>& progress)>;
  explicit Downloads(Pull pull) : pull_(std::move(pull)) {}
  ~Downloads();
  Downloads(const Downloads&) = delete;
  Downloads& operator=(const Downloads&) = delete;

  struct News {
    std::optional<PullProgress> progress;  // the newest, if there is any since the last News
    bool done = false;
    std::optional<Error> error;  // with done
  };

 private:
  struct Download;

 public:
  // One who watches; destroying it is giving up.
  class Watch {
   public:
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    News take();  // never blocks
    // Called once, from the download's thread or at once, when take() has something new.
    void notify_when_ready(std::function<void()> wake);

   private:
    friend class Downloads;
    explicit Watch(std::shared_ptr<Download> download);
    std::shared_ptr<Download> download_;
    std::uint64_t seen_ = 0;  // version of the progress
    int number_ = 0;
  };
  // Starts to fetch `name`, or joins those who wait for it. kOverloaded: kMostAtOnce are running.
  static constexpr std::size_t kMostAtOnce = 8;
  std::unique_ptr<Watch> watch(const std::string& name);

 private:
  struct Running {
    std::shared_ptr<Download> download;
    std::thread thread;
  };
  void reap();

  Pull pull_;
  std::mutex mutex_;  // guards running_
  std::map<std::string, Running> running_;
};

}  // namespace mlxs
