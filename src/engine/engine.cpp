#include "mlxs/engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/log.h"
#include "engine/engine_impl.h"
#include "engine/params.h"
#include "engine/prompt.h"

namespace mlxs {

// A model that is on this disk has a remedy.
void Engine::Impl::refuse_unloaded(std::string_view id, const std::vector<std::string>& loaded) const {
  std::string hint =
      loaded.empty() ? std::string("no model is loaded") : fmt::format("loaded: {}", fmt::join(loaded, ", "));
  const std::vector<CatalogEntry> entries = catalog.list();
  if (std::ranges::find(entries, id, &CatalogEntry::name) != entries.end()) {
    hint += fmt::format(
        "; it is on this disk: `mlx-serving serve {0}` loads it at the start, POST /api/generate "
        "{{\"model\": \"{0}\"}} loads it now",
        id);
  }
  throw Error(ErrorCode::kModelNotFound, fmt::format("model '{}' is not loaded", id), std::move(hint),
              "model");
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { dispose(); }

std::unique_ptr<Engine> Engine::create(EngineOptions options) {
  log::leave_stdout();
  clamp(options);
  validate(options);
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(std::move(options))));
}

ModelInfo Engine::load_model(const LoadOptions& options) {
  const std::lock_guard one_at_a_time(impl_->loading);
  LoadOptions wanted = options;
  const std::filesystem::path path = impl_->catalog.resolve(options.model);
  if (wanted.served_name.empty()) wanted.served_name = impl_->catalog.display_name(options.model);
  for (std::string& model : wanted.next) model = impl_->catalog.resolve(model).string();
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->models.find(wanted.served_name);
    if (found != impl_->models.end()) {
      const ModelInfo& info = found->second->info();
      const bool same_context = wanted.context_length == 0 || wanted.context_length == info.context_length;
      if (info.path == path.string() && same_context) return info;
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("'{}' is already loaded from {} with a context of {}", wanted.served_name, info.path,
                      info.context_length),
          "give another served name (serve --served-model-name names its first model), or unload it first",
          "served_name");
    }
    if (impl_->models.size() >= static_cast<std::size_t>(impl_->options.max_loaded_models)) {
      throw Error(
          ErrorCode::kOutOfMemory,
          fmt::format("{} models are loaded, the most that max_loaded_models allows", impl_->models.size()),
          "unload one first, or raise max_loaded_models");
    }
  }
  std::shared_ptr<LoadedModel> model = impl_->loop.call([&](Backend& backend) {
    auto loaded = std::make_shared<LoadedModel>(wanted, impl_->options, path.string(), backend, impl_->clock,
                                                impl_->store, impl_->loop.inbox());
    impl_->loop.add(loaded);
    return loaded;
  });
  const std::lock_guard lock(impl_->mutex);
  impl_->models.emplace(wanted.served_name, model);
  return model->info();
}

void Engine::unload_model(std::string_view id) {
  std::shared_ptr<LoadedModel> model;
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->models.find(id);
    if (found == impl_->models.end()) return;
    model = std::move(found->second);
    impl_->models.erase(found);
  }
  impl_->loop.call([&](Backend&) {
    model->end_all(Error(ErrorCode::kUnavailable, fmt::format("model '{}' was unloaded", model->info().id)));
    impl_->loop.remove(*model);
    model.reset();  // weights and KV tensors go on the thread that made them
  });
}

std::vector<ModelInfo> Engine::list_models() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<ModelInfo> result;
  for (const auto& [name, model] : impl_->models) result.push_back(model->info());
  return result;
}

ModelInfo Engine::model_info(std::string_view id) const { return impl_->find(id)->info(); }

std::unique_ptr<Encoding> Engine::create_encoding(const EncodeParams& params) {
  return begin_encoding(impl_->find(params.model), impl_->loop.inbox(), params, impl_->clock);
}

std::vector<std::int32_t> Engine::tokenize(std::string_view model, std::string_view text,
                                           bool add_special) const {
  return impl_->find(model)->tokenizer().encode(text, {.add_special = add_special});
}

std::string Engine::detokenize(std::string_view model, std::span<const std::int32_t> tokens) const {
  return impl_->find(model)->tokenizer().decode(tokens, true);
}

std::vector<std::string> Engine::token_texts(std::string_view model,
                                             std::span<const std::int32_t> tokens) const {
  const std::shared_ptr<LoadedModel> loaded = impl_->find(model);
  std::vector<std::string> texts;
  for (const TokenId token : tokens) texts.emplace_back(loaded->tokenizer().token_bytes(token));
  return texts;
}

std::string Engine::render_chat(std::string_view model, const ChatPrompt& prompt) const {
  return render(*impl_->find_generating(model), prompt);
}

std::vector<std::int32_t> Engine::encode_prompt(std::string_view model, const Prompt& prompt) const {
  return encode(*impl_->find_generating(model), prompt);
}

void Engine::warmup_model(std::string_view model) {
  // Not a request: nobody asked, so neither the metrics nor the prefix tree hear of it.
  const std::shared_ptr<LoadedModel> loaded = impl_->find(model);
  const TokenId start = std::max<TokenId>(loaded->tokenizer().bos(), 0);
  if (loaded->info().is_encoder) {
    create_encoding({.model = std::string(model), .inputs = {{.text = {}, .pair = {}, .tokens = {start}}}})
        ->wait();
    return;
  }
  evaluate(model, std::span(&start, 1));
}

std::vector<EngineSchedulerStats> Engine::scheduler_stats() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<EngineSchedulerStats> result;
  for (const auto& [name, model] : impl_->models) result.push_back(model->stats());
  return result;
}

MetalOptimizationsStats Engine::metal_optimizations_stats() const { return impl_->loop.optimization_stats(); }

EngineHealth Engine::health() const {
  constexpr double kStallSeconds = 30;  // a step takes well under a second; a longer one hangs
  EngineHealth health;
  health.live = impl_->loop.running();
  health.last_step_age_seconds = impl_->loop.step_age_seconds();
  bool loaded = false;
  {
    const std::lock_guard lock(impl_->mutex);
    loaded = !impl_->models.empty();
    for (const auto& [name, model] : impl_->models) {
      const EngineSchedulerStats stats = model->stats();
      health.active_requests += stats.running + stats.waiting;
    }
  }
  if (!health.live) {
    health.reason = "the engine thread has ended";
  } else if (!loaded) {
    health.reason = "no model is loaded";
  } else if (health.last_step_age_seconds > kStallSeconds) {
    health.reason = fmt::format("the running step has taken {:.0f} s so far", health.last_step_age_seconds);
  } else {
    health.ready = true;
  }
  return health;
}

const EngineOptions& Engine::options() const { return impl_->options; }

std::string Engine::device_description() const {
  return impl_->loop.call([](Backend& backend) {
    const DeviceInfo device = backend.device();
    return device.name + " (" + device.description + ")";
  });
}

std::vector<float> Engine::evaluate(std::string_view model, std::span<const std::int32_t> tokens,
                                    std::int32_t chunk) {
  if (chunk < 1)
    throw Error(ErrorCode::kInvalidArgument, fmt::format("chunk = {} is below 1", chunk), {}, "chunk");
  const std::shared_ptr<LoadedModel> loaded = impl_->find_generating(model);
  answer_limit(*loaded, static_cast<int>(tokens.size()) - 1, {});
  return impl_->loop.call([&](Backend&) { return loaded->evaluate(tokens, chunk); });
}

void Engine::dispose() {
  impl_->loop.stop();
  const std::lock_guard lock(impl_->mutex);
  impl_->models.clear();
}

}  // namespace mlxs
