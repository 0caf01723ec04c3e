#include "serve/model_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/log.h"

namespace mlxs {
namespace {

constexpr std::string_view kLatest = ":latest";

// Who uses the engine itself has no lease.
bool is_busy(const Engine& engine, std::string_view id) {
  return std::ranges::any_of(engine.scheduler_stats(), [&](const EngineSchedulerStats& stats) {
    return stats.model == id && stats.running + stats.waiting + stats.paused > 0;
  });
}

std::optional<TimePoint> expiry_after(Duration keep) {
  if (keep < Duration::zero()) return std::nullopt;
  return std::chrono::steady_clock::now() + keep;
}

}  // namespace

ModelKeeper::ModelKeeper(Engine& engine, Catalog catalog)
    : engine_(engine), catalog_(std::move(catalog)), thread_([this] { run(); }) {}

ModelKeeper::~ModelKeeper() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  thread_.join();
}

std::optional<std::string> ModelKeeper::loaded_name(std::string_view name) const {
  const std::vector<ModelInfo> models = engine_.list_models();
  const auto is_loaded = [&](std::string_view id) {
    return std::ranges::any_of(models, [&](const ModelInfo& model) { return model.id == id; });
  };
  if (is_loaded(name)) return std::string(name);
  if (name.ends_with(kLatest)) name.remove_suffix(kLatest.size());
  return is_loaded(name) ? std::optional<std::string>(name) : std::nullopt;
}

// Names only: a path from the network is none of our business.
std::optional<std::string> ModelKeeper::catalog_name(std::string_view name) const {
  const std::vector<CatalogEntry> entries = catalog_.list();
  const auto is_there = [&](std::string_view wanted) {
    return std::ranges::any_of(entries, [&](const CatalogEntry& entry) { return entry.name == wanted; });
  };
  if (is_there(name)) return std::string(name);
  if (name.ends_with(kLatest)) name.remove_suffix(kLatest.size());
  if (is_there(name)) return std::string(name);
  if (!catalog_.can_pull(name)) return std::nullopt;
  try {  // "org/repo", where the only file is listed as "org/repo:Q4_K_M"
    const std::filesystem::path path = catalog_.resolve(name);
    const auto entry = std::ranges::find(entries, path, &CatalogEntry::path);
    if (entry != entries.end()) return entry->name;
  } catch (const Error&) {  // it was not pulled
  }
  return std::nullopt;
}

ModelKeeper::Held ModelKeeper::hold(std::string_view name, std::optional<Duration> keep_alive) {
  const std::lock_guard one_at_a_time(loading_);
  Held held;
  if (const auto loaded = loaded_name(name)) {
    held.id = *loaded;
  } else if (const auto known = catalog_name(name)) {
    held.id = *known;
    if (!loaded_name(held.id)) held.load_seconds = load(held.id);
  } else {
    std::vector<std::string> names;
    for (const CatalogEntry& entry : catalog_.list()) names.push_back(entry.name);
    for (const ModelInfo& model : engine_.list_models()) names.push_back(model.id);
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());  // a loaded one may be in the catalog, too
    throw Error(ErrorCode::kModelNotFound, fmt::format("model '{}' not found", name),
                fmt::format("there are {}; POST /api/pull fetches others", fmt::join(names, ", ")), "model");
  }
  const std::lock_guard lock(state_->mutex);
  const auto entry = state_->entries.find(held.id);
  if (entry == state_->entries.end()) return held;  // loaded otherwise
  if (keep_alive) entry->second.keep = *keep_alive;
  held.kept = true;
  held.use = begin_use(held.id, entry->second);
  return held;
}

std::shared_ptr<void> ModelKeeper::use(std::string_view id) {
  const std::lock_guard lock(state_->mutex);
  const auto entry = state_->entries.find(id);
  return entry == state_->entries.end() ? nullptr : begin_use(id, entry->second);
}

// Under State::mutex.
std::shared_ptr<void> ModelKeeper::begin_use(std::string_view id, Entry& entry) {
  ++entry.uses;
  return {nullptr, [state = state_, id = std::string(id)](void*) { state->release(id); }};
}

// Under loading_.
double ModelKeeper::load(const std::string& name) {
  if (engine_.list_models().empty()) {
    throw Error(ErrorCode::kUnavailable, "the server is still loading its models", "try again in a moment");
  }
  const TimePoint start = std::chrono::steady_clock::now();
  for (;;) {
    try {
      engine_.load_model({.model = name, .served_name = name, .context_length = 0, .force = false});
      break;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfMemory || !evict_one()) throw;
    }
  }
  const double seconds = to_seconds(std::chrono::steady_clock::now() - start);
  log::info("{}: loaded for a request in {:.2f} s", name, seconds);
  const std::lock_guard lock(state_->mutex);
  state_->entries[name] = {.uses = 0, .keep = kDefaultKeepAlive, .expiry = std::nullopt};
  return seconds;
}

// Under loading_: unloads the model that would go first, if one is idle.
bool ModelKeeper::evict_one() {
  std::string victim;
  {
    const std::lock_guard lock(state_->mutex);
    auto first = state_->entries.end();
    for (auto it = state_->entries.begin(); it != state_->entries.end(); ++it) {
      if (it->second.uses > 0 || is_busy(engine_, it->first)) continue;
      const TimePoint never = TimePoint::max();
      if (first == state_->entries.end() ||
          it->second.expiry.value_or(never) < first->second.expiry.value_or(never))
        first = it;
    }
    if (first == state_->entries.end()) return false;
    victim = first->first;
    state_->entries.erase(first);
  }
  log::info("{}: unloaded to make room", victim);
  engine_.unload_model(victim);
  return true;
}

std::optional<TimePoint> ModelKeeper::expiry(std::string_view id) const {
  const std::lock_guard lock(state_->mutex);
  const auto entry = state_->entries.find(id);
  if (entry == state_->entries.end()) return std::nullopt;
  return entry->second.uses > 0 ? expiry_after(entry->second.keep) : entry->second.expiry;
}

void ModelKeeper::State::release(const std::string& id) {
  {
    const std::lock_guard lock(mutex);
    const auto entry = entries.find(id);
    if (entry == entries.end() || --entry->second.uses > 0) return;
    entry->second.expiry = expiry_after(entry->second.keep);
  }
  changed.notify_all();
}

// The next model whose time is over, no more in the table; under loading_.
std::optional<std::string> ModelKeeper::take_expired() {
  const std::lock_guard lock(state_->mutex);
  const TimePoint now = std::chrono::steady_clock::now();
  for (auto it = state_->entries.begin(); it != state_->entries.end(); ++it) {
    Entry& entry = it->second;
    if (entry.uses > 0 || !entry.expiry || *entry.expiry > now) continue;
    if (is_busy(engine_, it->first)) {
      entry.expiry = now + std::max<Duration>(entry.keep, std::chrono::seconds(1));
      continue;
    }
    std::string id = it->first;
    state_->entries.erase(it);
    return id;
  }
  return std::nullopt;
}

void ModelKeeper::run() {
  for (;;) {
    {
      std::unique_lock lock(state_->mutex);
      const auto next = [this] {
        TimePoint first = TimePoint::max();
        for (const auto& [id, entry] : state_->entries) {
          if (entry.uses == 0) first = std::min(first, entry.expiry.value_or(TimePoint::max()));
        }
        return first;
      };
      while (!state_->stopping && next() > std::chrono::steady_clock::now()) {
        // Some libraries add to the time they are given: not to its maximum.
        const TimePoint latest = std::chrono::steady_clock::now() + std::chrono::hours(1);
        state_->changed.wait_until(lock, std::min(next(), latest));
      }
      if (state_->stopping) return;
    }
    const std::lock_guard one_at_a_time(loading_);
    while (const std::optional<std::string> id = take_expired()) {
      engine_.unload_model(*id);
      log::info("{}: unloaded, nobody asked for it", *id);
    }
  }
}

}  // namespace mlxs
