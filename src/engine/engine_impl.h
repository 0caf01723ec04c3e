// What an Engine is made of. Shared by the files that implement its interface (engine.cpp, generator.cpp),
// which run on their callers' threads; models are used on the engine thread only, but for what says
// otherwise.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/metal_options.h"
#include "backend/registry.h"
#include "engine/cache_salts.h"
#include "engine/encoding.h"
#include "engine/loaded_model.h"
#include "engine/step_loop.h"
#include "formats/catalog.h"
#include "mlxs/engine.h"

namespace mlxs {

struct Engine::Impl {
  explicit Impl(EngineOptions engine_options)
      : options(std::move(engine_options)),
        catalog(options.cache_dir.empty() ? cache_directory() : std::filesystem::path(options.cache_dir)),
        store(options.prefix_cache_dir.empty()
                  ? nullptr
                  : std::make_shared<PageStore>(options.prefix_cache_dir, options.prefix_cache_disk_bytes)),
        salts(store ? CacheSalts(options.prefix_cache_dir) : CacheSalts()),
        loop(
            make_backend(options.backend, {.threads = options.threads,
                                           .device = options.device,
                                           .optimizations = options.metal_optimizations}),
            clock,
            make_part(options.metal_optimizations, options.metal_optimizations.command_buffer_ring.enabled,
                      "command_buffer_ring", [&] {
                        return std::make_unique<CommandRing>(options.metal_optimizations.command_buffer_ring);
                      })) {}

  std::shared_ptr<LoadedModel> find(std::string_view id) const {
    std::vector<std::string> names;
    {
      const std::lock_guard lock(mutex);
      const auto found = models.find(id);
      if (found != models.end()) return found->second;
      for (const auto& [name, model] : models) names.push_back(name);
    }
    refuse_unloaded(id, names);
  }
  [[noreturn]] void refuse_unloaded(std::string_view id, const std::vector<std::string>& loaded) const;

  std::shared_ptr<LoadedModel> find_generating(std::string_view id) const {
    std::shared_ptr<LoadedModel> model = find(id);
    if (model->info().is_encoder) refuse_generation(model->info());
    return model;
  }

  // Everything of create_generator() but handing the request over (generator.cpp).
  struct Prepared;
  Prepared prepare(const GenerateParams& params);

  EngineOptions options;
  SteadyClock clock;
  Catalog catalog;
  const std::shared_ptr<PageStore> store;  // null: no disk tier
  const CacheSalts salts;
  StepLoop loop;
  std::atomic<RequestId> next_id{1};
  mutable std::mutex mutex;  // guards models
  std::map<std::string, std::shared_ptr<LoadedModel>, std::less<>> models;
  std::mutex loading;  // one load at a time: a second caller of the same model finds it loaded
};

}  // namespace mlxs
