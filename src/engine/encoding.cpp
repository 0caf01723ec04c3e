#include "engine/encoding.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/encode_task.h"

namespace mlxs {

struct Encoding::Impl {
  std::shared_ptr<EncodeTask> task;
  std::shared_ptr<Inbox> inbox;
  std::weak_ptr<LoadedModel> model;
};

Encoding::Encoding(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Encoding::~Encoding() {
  impl_->inbox->post([weak = impl_->model, task = impl_->task] {
    if (const auto alive = weak.lock()) alive->cancel(*task);
  });
}

EncodeResult Encoding::wait() {
  impl_->task->wait();
  return *impl_->task->try_take();
}

std::optional<EncodeResult> Encoding::try_take() { return impl_->task->try_take(); }

void Encoding::notify_when_ready(std::function<void()> callback) {
  impl_->task->notify_when_ready(std::move(callback));
}

namespace {

constexpr std::size_t kMostInputs = 2048;  // OpenAI's limit

// The end goes, but for the token that closes the text.
void truncate(std::vector<TokenId>& tokens, std::size_t size, const Tokenizer& tokenizer) {
  if (tokens.size() <= size) return;
  const TokenId last = tokens.back();
  tokens.resize(size);
  if (tokenizer.is_special(last)) tokens.back() = last;
}

class InputReader {
 public:
  InputReader(const LoadedModel& model, const EncodeParams& params)
      : model_(model), params_(params), limit_(static_cast<std::size_t>(model.context_limit())) {
    if (params.truncate_to) limit_ = std::min(limit_, static_cast<std::size_t>(*params.truncate_to));
  }

  EncodedInput read(std::size_t index) const {
    const EncoderInput& input = params_.inputs[index];
    EncodedInput encoded;
    encoded.tokens =
        input.tokens.empty() ? model_.tokenizer().encode(input.text, {}) : checked(input.tokens, index);
    encoded.first_pair_token = static_cast<std::int32_t>(encoded.tokens.size());
    if (input.pair) add_pair(*input.pair, encoded.tokens);
    if (encoded.tokens.size() > limit_) {
      if (!params_.truncate_to) refuse_length(index, encoded.tokens.size());
      truncate(encoded.tokens, limit_, model_.tokenizer());
      encoded.first_pair_token =
          std::min(encoded.first_pair_token, static_cast<std::int32_t>(encoded.tokens.size()));
    }
    if (encoded.tokens.empty()) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("input {} is empty", index),
                  "send at least one token of text", "input");
    }
    return encoded;
  }

 private:
  const std::vector<TokenId>& checked(const std::vector<TokenId>& tokens, std::size_t index) const {
    const int vocabulary = model_.info().vocabulary;
    for (const TokenId token : tokens) {
      if (token >= 0 && token < vocabulary) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("token id {} of input {} is outside the vocabulary", token, index),
                  fmt::format("ids of '{}' are 0 … {}", model_.info().id, vocabulary - 1), "input");
    }
    return tokens;
  }

  void add_pair(const std::string& text, std::vector<TokenId>& tokens) const {
    const TokenId separator = tokens.empty() ? -1 : tokens.back();
    const auto second = model_.tokenizer().encode(text, {.add_special = false});
    if (model_.double_separator() && separator >= 0) tokens.push_back(separator);
    tokens.insert(tokens.end(), second.begin(), second.end());
    if (separator >= 0) tokens.push_back(separator);
  }

  [[noreturn]] void refuse_length(std::size_t index, std::size_t size) const {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("input {} has {} tokens, '{}' reads {}", index, size, model_.info().id, limit_),
                "split it, or ask for it to be cut; that never happens by itself", "input");
  }

  const LoadedModel& model_;
  const EncodeParams& params_;
  std::size_t limit_;
};

void check(const ModelInfo& model, const EncodeParams& params) {
  if (!model.is_encoder) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("'{}' generates text and makes no embeddings", model.id),
                "serve an encoder beside it, such as minilm", "model");
  }
  if (params.inputs.empty() || params.inputs.size() > kMostInputs) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there are {} inputs", params.inputs.size()),
                fmt::format("send 1 … {}", kMostInputs), "input");
  }
  if (params.truncate_to && *params.truncate_to < 1) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("truncate_to = {}", *params.truncate_to),
                "it must be at least 1", "truncate_to");
  }
}

}  // namespace

void refuse_generation(const ModelInfo& model) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is an encoder and generates no text", model.id),
              model.scores ? "use /v1/rerank or /v1/score" : "use /v1/embeddings, /v1/rerank or /v1/score",
              "model");
}

std::unique_ptr<Encoding> begin_encoding(const std::shared_ptr<LoadedModel>& model,
                                         const std::shared_ptr<Inbox>& inbox, const EncodeParams& params,
                                         const Clock& clock) {
  check(model->info(), params);
  EncodeOrigin origin{.request_id = params.request_id,
                      .user = params.user,
                      .timeline = TimelineRecorder(params.received.value_or(clock.now())),
                      .on_ended = params.on_ended};
  origin.timeline.tokenizing(clock.now(), {});
  const InputReader reader(*model, params);
  std::vector<EncodedInput> inputs;
  for (std::size_t i = 0; i < params.inputs.size(); ++i) inputs.push_back(reader.read(i));
  origin.timeline.submitted(clock.now());
  auto impl = std::make_shared<Encoding::Impl>(
      Encoding::Impl{std::make_shared<EncodeTask>(std::move(inputs), std::move(origin)), inbox, model});
  const bool queued = inbox->post([weak = impl->model, task = impl->task, id = model->info().id, &clock] {
    if (const auto alive = weak.lock()) {
      alive->encode(task);
      return;
    }
    const Error error(ErrorCode::kUnavailable, "the model was unloaded");
    task->tell_end(id, "error", error.full(), clock.now());
    task->fail(error);
  });
  if (!queued) throw Error(ErrorCode::kUnavailable, "the engine was disposed of", "create a new one");
  return std::make_unique<Encoding>(std::move(impl));
}

}  // namespace mlxs
