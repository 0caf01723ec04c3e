#include "mlxs/engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "backend/metal_options.h"
#include "backend/registry.h"
#include "engine/cache_salts.h"
#include "engine/encoding.h"
#include "engine/loaded_model.h"
#include "engine/params.h"
#include "engine/step_loop.h"
#include "engine/structured.h"
#include "formats/catalog.h"

namespace mlxs {

// ---------------------------------------------------------------- Generator

struct Generator::Impl {
  std::shared_ptr<TokenChannel> channel;
  std::shared_ptr<Inbox> inbox;
  std::weak_ptr<LoadedModel> model;
  RequestId id = 0;
  int prompt_tokens = 0;

  void cancel() const {
    if (channel->ended()) return;
    inbox->post([weak = model, request = id] {
      if (const auto alive = weak.lock()) alive->cancel(request);
    });
  }
};

Generator::Generator(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Generator::~Generator() { impl_->cancel(); }
std::optional<Chunk> Generator::next() { return impl_->channel->pop_blocking(); }
Generator::Poll Generator::try_next(Chunk& out) { return impl_->channel->try_pop(out); }
void Generator::notify_when_ready(std::function<void()> callback) {
  impl_->channel->notify_when_ready(std::move(callback));
}
void Generator::cancel() { impl_->cancel(); }
int Generator::prompt_tokens() const { return impl_->prompt_tokens; }

// ---------------------------------------------------------------- Engine

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
    const std::lock_guard lock(mutex);
    const auto found = models.find(id);
    if (found != models.end()) return found->second;
    std::vector<std::string_view> names;
    for (const auto& [name, model] : models) names.push_back(name);
    throw Error(
        ErrorCode::kModelNotFound, fmt::format("model '{}' is not loaded", id),
        names.empty() ? std::string("no model is loaded") : fmt::format("loaded: {}", fmt::join(names, ", ")),
        "model");
  }

  std::shared_ptr<LoadedModel> find_generating(std::string_view id) const {
    std::shared_ptr<LoadedModel> model = find(id);
    if (model->info().is_encoder) refuse_generation(model->info());
    return model;
  }

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

namespace {

std::string render(const LoadedModel& model, const ChatPrompt& prompt) {
  const ChatTemplate* chat_template = model.chat_template();
  if (chat_template == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("model '{}' has no chat template", model.info().id),
                "send a plain prompt instead (POST /v1/completions, or run --raw)", "messages");
  }
  nlohmann::ordered_json context;
  if (!prompt.messages_json.empty()) {
    context["messages"] = nlohmann::ordered_json::parse(prompt.messages_json);
  } else {
    auto& messages = context["messages"] = nlohmann::ordered_json::array();
    for (const ChatMessage& message : prompt.messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
  }
  if (!prompt.tools_json.empty()) context["tools"] = nlohmann::ordered_json::parse(prompt.tools_json);
  if (!prompt.variables_json.empty()) context.update(nlohmann::ordered_json::parse(prompt.variables_json));
  context["add_generation_prompt"] = prompt.add_generation_prompt;
  return chat_template->render(context.dump());
}

std::vector<TokenId> encode(const LoadedModel& model, const Prompt& prompt) {
  struct Visitor {
    const LoadedModel& model;
    std::vector<TokenId> operator()(const std::string& text) const {
      return model.tokenizer().encode(text, {});
    }
    // The template writes the special tokens itself.
    std::vector<TokenId> operator()(const ChatPrompt& chat) const {
      return model.tokenizer().encode(render(model, chat), {.add_special = false});
    }
    std::vector<TokenId> operator()(const TokenPrompt& given) const {
      const int vocabulary = model.info().vocabulary;
      for (const TokenId token : given.tokens) {
        if (token < 0 || token >= vocabulary) {
          throw Error(ErrorCode::kInvalidArgument,
                      fmt::format("token id {} is outside the vocabulary", token),
                      fmt::format("ids of '{}' are 0 … {}", model.info().id, vocabulary - 1), "prompt");
        }
      }
      return given.tokens;
    }
  };
  std::vector<TokenId> tokens = std::visit(Visitor{model}, prompt);
  const auto unknown =
      std::ranges::find_if(tokens, [&](TokenId id) { return id >= model.info().vocabulary; });
  if (unknown != tokens.end()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt holds '{}' (token {}), which '{}' has no embedding for",
                            model.tokenizer().token_bytes(*unknown), *unknown, model.info().id),
                "leave it out: it stands for something else than text", "prompt");
  }
  if (tokens.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the prompt is empty", "send at least one token of text",
                "prompt");
  }
  return tokens;
}

// How many tokens the answer may have; throws kContextOverflow with both numbers.
int answer_limit(const LoadedModel& model, int prompt_tokens, std::optional<int> asked) {
  const int context = model.context_limit();
  const int room = context - prompt_tokens;
  if (room < 1) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the prompt has {} tokens, the context of '{}' is {}", prompt_tokens,
                            model.info().id, context),
                "shorten the prompt; it is never truncated for you", "prompt");
  }
  if (asked.value_or(1) > room) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("{} prompt tokens + max_tokens {} = {} exceed the context of {} tokens",
                            prompt_tokens, *asked, prompt_tokens + *asked, context),
                fmt::format("max_tokens can be at most {} here", room), "max_tokens");
  }
  return asked.value_or(room);
}

}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { dispose(); }

std::unique_ptr<Engine> Engine::create(EngineOptions options) {
  clamp(options);
  validate(options);
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(std::move(options))));
}

ModelInfo Engine::load_model(const LoadOptions& options) {
  const std::lock_guard one_at_a_time(impl_->loading);
  LoadOptions wanted = options;
  const std::filesystem::path path = impl_->catalog.resolve(options.model);
  if (wanted.served_name.empty()) wanted.served_name = impl_->catalog.display_name(options.model);
  {
    const std::lock_guard lock(impl_->mutex);
    const auto found = impl_->models.find(wanted.served_name);
    if (found != impl_->models.end()) {
      const ModelInfo& info = found->second->info();
      const bool same_context = wanted.context_length == 0 || wanted.context_length == info.context_length;
      if (info.path == path.string() && same_context) return info;
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("'{}' is already loaded from {} with a context of {}", wanted.served_name,
                              info.path, info.context_length),
                  "give another served name, or unload it first", "served_name");
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

std::unique_ptr<Generator> Engine::create_generator(const GenerateParams& params) {
  TimelineRecorder timeline(params.received.value_or(impl_->clock.now()));
  const std::shared_ptr<LoadedModel> model = impl_->find_generating(params.model);
  validate(params, model->info().vocabulary);
  timeline.tokenizing(impl_->clock.now(), params.tokenizing);
  std::vector<TokenId> tokens = encode(*model, params.prompt);
  timeline.compiling_grammar(impl_->clock.now());
  const auto prompt_tokens = static_cast<int>(tokens.size());
  const int limit = answer_limit(*model, prompt_tokens, params.max_tokens);

  const RequestId id = impl_->next_id.fetch_add(1, std::memory_order_relaxed);
  const std::shared_ptr<Inbox> inbox = impl_->loop.inbox();
  const std::weak_ptr<LoadedModel> weak = model;
  auto channel = std::make_shared<TokenChannel>([inbox, weak, id] {
    inbox->post([weak, id] {
      if (const auto alive = weak.lock()) alive->resume(id);
    });
  });
  SchedRequest entry = sched_request(params, impl_->options);
  entry.id = id;
  entry.prompt = tokens;
  entry.max_new_tokens = limit;
  entry.cache_salt = impl_->salts.of(params.cache_salt);
  entry.tenant = impl_->salts.of(params.user);
  auto request =
      std::make_unique<Request>(id, params, std::move(tokens), limit, model->tokenizer(), channel, timeline);
  if (params.structured) {
    request->grammar = matcher_for(*model, *params.structured);
    request->allowed.resize((static_cast<std::size_t>(model->info().vocabulary) + 31) / 32);
  }
  request->queued = impl_->clock.now();
  request->timeline.submitted(request->queued);
  entry.arrival = request->timeline.received();  // targets count from there
  // std::function wants copies, so the request travels in a shared holder.
  auto parcel = std::make_shared<std::pair<std::unique_ptr<Request>, SchedRequest>>(std::move(request),
                                                                                    std::move(entry));
  const bool queued = inbox->post([weak, parcel, id = params.model, &clock = impl_->clock] {
    if (const auto alive = weak.lock()) {
      alive->submit(std::move(parcel->first), std::move(parcel->second));
    } else {
      parcel->first->tell_end(id, "error", "the model was unloaded", clock.now());
      parcel->first->channel->push({.type = Chunk::Type::kError,
                                    .finish = FinishReason::kError,
                                    .error_code = ErrorCode::kUnavailable,
                                    .error_message = "the model was unloaded"});
    }
  });
  if (!queued) throw Error(ErrorCode::kUnavailable, "the engine was disposed of", "create a new one");

  auto impl = std::make_shared<Generator::Impl>();
  impl->channel = std::move(channel);
  impl->inbox = inbox;
  impl->model = weak;
  impl->id = id;
  impl->prompt_tokens = prompt_tokens;
  return std::unique_ptr<Generator>(new Generator(std::move(impl)));
}

GenerateResult Engine::generate(const GenerateParams& params) {
  const std::unique_ptr<Generator> generator = create_generator(params);
  GenerateResult result;
  while (std::optional<Chunk> chunk = generator->next()) {
    switch (chunk->type) {
      case Chunk::Type::kToken:
        result.text += chunk->text;
        if (chunk->token_id >= 0) result.tokens.push_back(chunk->token_id);
        break;
      case Chunk::Type::kDone:
        result.finish = chunk->finish;
        result.stats = chunk->stats;
        break;
      case Chunk::Type::kError: {
        Error error(chunk->error_code, chunk->error_message);
        error.set_retry_after_s(chunk->retry_after_s);
        throw error;
      }
    }
  }
  return result;
}

std::unique_ptr<Encoding> Engine::create_encoding(const EncodeParams& params) {
  return begin_encoding(impl_->find(params.model), impl_->loop.inbox(), params,
                        impl_->options.max_queue_depth);
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
