#include <fmt/format.h>

#include <utility>

#include "engine/engine_impl.h"
#include "engine/params.h"
#include "engine/prompt.h"
#include "engine/structured.h"

namespace mlxs {

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

namespace {

// A request on its way to the engine thread. Shared, because std::function wants copies.
struct Parcel {
  std::string model_id;
  std::weak_ptr<LoadedModel> model;
  std::unique_ptr<Request> request;
  SchedRequest entry;

  void deliver(const Clock& clock) {
    if (const auto alive = model.lock()) {
      alive->submit(std::move(request), std::move(entry));
      return;
    }
    request->tell_end(model_id, "error", "the model was unloaded", clock.now());
    request->channel->push({.type = Chunk::Type::kError,
                            .finish = FinishReason::kError,
                            .error_code = ErrorCode::kUnavailable,
                            .error_message = "the model was unloaded"});
  }
};

}  // namespace

struct Engine::Impl::Prepared {
  std::shared_ptr<Generator::Impl> generator;
  std::shared_ptr<Parcel> parcel;
};

Engine::Impl::Prepared Engine::Impl::prepare(const GenerateParams& params) {
  TimelineRecorder timeline(params.received.value_or(clock.now()));
  const std::shared_ptr<LoadedModel> model = find_generating(params.model);
  validate(params, model->info().vocabulary);
  timeline.tokenizing(clock.now(), params.tokenizing);
  std::vector<TokenId> tokens = encode(*model, params.prompt);
  timeline.compiling_grammar(clock.now());
  const auto prompt_tokens = static_cast<int>(tokens.size());
  const int limit = answer_limit(*model, prompt_tokens, params.max_tokens);

  const RequestId id = next_id.fetch_add(1, std::memory_order_relaxed);
  const std::shared_ptr<Inbox> inbox = loop.inbox();
  const std::weak_ptr<LoadedModel> weak = model;
  auto channel = std::make_shared<TokenChannel>([inbox, weak, id] {
    inbox->post([weak, id] {
      if (const auto alive = weak.lock()) alive->resume(id);
    });
  });
  SchedRequest entry = sched_request(params, options);
  entry.id = id;
  entry.prompt = tokens;
  entry.max_new_tokens = limit;
  entry.cache_salt = salts.of(params.cache_salt);
  if (params.pin_prompt) entry.pins.push_back({system_tokens(*model, params.prompt, entry.prompt)});
  for (const PromptPin& pin : params.pins)
    entry.pins.push_back({pin.tokens, std::chrono::milliseconds(pin.ttl_ms)});
  entry.tenant = salts.of(params.user);
  auto request =
      std::make_unique<Request>(id, params, std::move(tokens), limit, model->tokenizer(), channel, timeline);
  if (params.structured) {
    request->grammar = matcher_for(*model, *params.structured);
    request->allowed.resize((static_cast<std::size_t>(model->info().vocabulary) + 31) / 32);
  }
  request->queued = clock.now();
  request->timeline.submitted(request->queued);
  entry.arrival = request->timeline.received();  // targets count from there

  auto generator = std::make_shared<Generator::Impl>();
  generator->channel = std::move(channel);
  generator->inbox = inbox;
  generator->model = weak;
  generator->id = id;
  generator->prompt_tokens = prompt_tokens;
  auto parcel = std::make_shared<Parcel>(Parcel{
      .model_id = params.model, .model = weak, .request = std::move(request), .entry = std::move(entry)});
  return {std::move(generator), std::move(parcel)};
}

std::vector<std::unique_ptr<Generator>> Engine::create_generators(std::span<const GenerateParams> all) {
  std::vector<std::unique_ptr<Generator>> generators;
  std::vector<std::shared_ptr<Parcel>> parcels;
  for (const GenerateParams& params : all) {
    Impl::Prepared prepared = impl_->prepare(params);
    generators.push_back(std::unique_ptr<Generator>(new Generator(std::move(prepared.generator))));
    parcels.push_back(std::move(prepared.parcel));
  }
  const bool queued = impl_->loop.inbox()->post([parcels = std::move(parcels), &clock = impl_->clock] {
    for (const std::shared_ptr<Parcel>& parcel : parcels) parcel->deliver(clock);
  });
  if (!queued) throw Error(ErrorCode::kUnavailable, "the engine was disposed of", "create a new one");
  return generators;
}

std::unique_ptr<Generator> Engine::create_generator(const GenerateParams& params) {
  return std::move(create_generators({&params, 1}).front());
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

}  // namespace mlxs
