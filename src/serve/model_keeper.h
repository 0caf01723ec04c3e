// Which models are loaded for as long as clients want them: loads what is on this disk when a request names
// it, and unloads it when keep_alive has passed since the last one. Models that were loaded otherwise (those
// on the command line of `serve`) stay. Owns one thread; methods are for any thread and throw mlxs::Error.
// The engine outlives it; leases may outlive it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "formats/catalog.h"
#include "mlxs/engine.h"

namespace mlxs {

inline constexpr std::chrono::minutes kDefaultKeepAlive{5};

class ModelKeeper {
 public:
  explicit ModelKeeper(Engine& engine, Catalog catalog = Catalog());
  ~ModelKeeper();
  ModelKeeper(const ModelKeeper&) = delete;
  ModelKeeper& operator=(const ModelKeeper&) = delete;

  struct Held {
    std::string id;             // of the loaded model
    bool kept = false;          // here: it goes when its time is over
    double load_seconds = 0;    // this call waited so long for it
    std::shared_ptr<void> use;  // its time begins when the last of these is gone
  };
  // name: a loaded model's id, or a name of the catalog, with or without Ollama's ":latest". Loads it if need
  // be, in the place of the one that would go first where there is no room. keep_alive: negative for ever, 0
  // until the use ends; nullopt: as before, at first kDefaultKeepAlive. kModelNotFound: not on this disk.
  Held hold(std::string_view name, std::optional<Duration> keep_alive);
  // A use of a loaded model, as it is kept; loads nothing. Null: none that was loaded here.
  std::shared_ptr<void> use(std::string_view id);

  // When a model goes if nobody uses it from now on; nullopt: never.
  std::optional<TimePoint> expiry(std::string_view id) const;

  // The loaded model's id, or the catalog's name, that `name` means; nullopt: neither.
  std::optional<std::string> loaded_name(std::string_view name) const;
  std::optional<std::string> catalog_name(std::string_view name) const;
  const Catalog& catalog() const { return catalog_; }

 private:
  struct Entry {
    int uses = 0;
    Duration keep{};
    std::optional<TimePoint> expiry;  // while nobody uses it; nullopt: never
  };
  struct State {  // shared with the uses
    std::mutex mutex;
    std::condition_variable changed;
    bool stopping = false;
    std::map<std::string, Entry, std::less<>> entries;  // models that were loaded here
    void release(const std::string& id);
  };

  std::shared_ptr<void> begin_use(std::string_view id, Entry& entry);
  double load(const std::string& name);
  bool evict_one();
  void run();
  std::optional<std::string> take_expired();

  Engine& engine_;
  Catalog catalog_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
  std::mutex loading_;  // one load or unload at a time; taken before State::mutex
  std::thread thread_;
};

}  // namespace mlxs
