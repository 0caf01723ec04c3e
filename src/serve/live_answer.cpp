#include "serve/live_answer.h"

#include <utility>

namespace mlxs {
namespace {

constexpr std::size_t kOneWrite = 64 << 10;  // bytes after which a stream writes before it goes on

Error with_field_name(const Error& error, const Generation& generation) {
  const auto alias = generation.field_names.find(error.field());
  if (alias == generation.field_names.end()) return error;
  Error renamed(error.code(), error.what(), error.hint(), alias->second);
  renamed.set_retry_after_s(error.retry_after_s());
  return renamed;
}

}  // namespace

LiveAnswer LiveAnswer::start(Engine& engine, Admission& admission, Generation generation, RequestTrace& trace,
                             int token_batch) {
  const int prompts = static_cast<int>(generation.prompts.size());
  admission.check({.prompts = prompts,
                   .choices_per_prompt = generation.n,
                   .stop_strings = static_cast<int>(generation.prompts.front().stop.size())});
  const int places = prompts * generation.n;

  LiveAnswer answer;
  answer.ticket_ = admission.enter(places);
  answer.lease_ = std::move(generation.lease);
  if (generation.stream) {
    answer.stream_type_ = generation.format->stream_type();
    answer.token_batch_ = token_batch;
    if (token_batch > 1) answer.held_.resize(static_cast<std::size_t>(places));
  }
  try {
    std::vector<GenerateParams> choices;
    choices.reserve(static_cast<std::size_t>(places));
    for (GenerateParams& params : generation.prompts) {
      if (generation.n > 1) {  // once for all choices
        const auto started = std::chrono::steady_clock::now();
        params.prompt = TokenPrompt{engine.encode_prompt(params.model, params.prompt)};
        params.tokenizing = std::chrono::steady_clock::now() - started;
      }
      for (int i = 0; i < generation.n; ++i) {
        choices.push_back(params);
        if (params.seed) ++*params.seed;
      }
    }
    answer.choices_ = engine.create_generators(choices);
    for (int i = 0; i < places; ++i) trace.expect_choice();
  } catch (const Error& error) {
    throw with_field_name(error, generation);
  }
  answer.open_ = answer.choices_.size();
  answer.error_body_ = generation.error_body;
  answer.format_ = std::move(generation.format);
  answer.warnings_ = std::move(generation.warnings);
  return answer;
}

LiveAnswer LiveAnswer::start(FeedReply reply) {
  LiveAnswer answer;
  answer.feed_ = std::move(reply.feed);
  answer.stream_type_ = reply.stream_type;
  answer.error_body_ = reply.error_body;
  answer.warnings_ = std::move(reply.warnings);
  return answer;
}

LiveAnswer::State LiveAnswer::pump_feed(std::string& out) {
  try {
    return feed_->take(out) ? State::kDone : State::kPending;
  } catch (const Error& error) {
    error_ = error;
    return State::kFailed;
  }
}

LiveAnswer::State LiveAnswer::pump(std::string& out) {
  if (error_) return State::kFailed;
  if (feed_) return pump_feed(out);
  bool more = false;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (!choices_[i]) continue;
    const State state = take(i, out);
    if (state == State::kFailed) return state;
    if (state == State::kMore) more = true;
  }
  if (open_ == 0) {
    format_->finish(out);
    return State::kDone;
  }
  return more ? State::kMore : State::kPending;
}

LiveAnswer::State LiveAnswer::take(std::size_t choice, std::string& out) {
  Chunk chunk;
  const std::size_t enough = out.size() + kOneWrite;  // each choice gets its share of a write
  while (out.size() < enough) {
    if (choices_[choice]->try_next(chunk) != Generator::Poll::kChunk) return State::kPending;
    if (token_batch_ > 1 && chunk.type == Chunk::Type::kToken && !chunk.logprob) {
      hold(choice, std::move(chunk), out);
      continue;
    }
    add_held(choice, out);
    if (chunk.type == Chunk::Type::kError) {
      error_.emplace(chunk.error_code, chunk.error_message);
      error_->set_retry_after_s(chunk.retry_after_s);
      return State::kFailed;
    }
    const bool done = chunk.type == Chunk::Type::kDone;
    if (done && chunk.finish == FinishReason::kCancelled) {  // nobody here asked for it: the engine is going
      error_.emplace(ErrorCode::kUnavailable, "the server is shutting down", "send the request again");
      return State::kFailed;
    }
    format_->add(choice, chunk, out);
    if (!done) continue;
    choices_[choice].reset();
    --open_;
    ticket_.release(1);
    return State::kDone;
  }
  return State::kMore;
}

void LiveAnswer::hold(std::size_t choice, Chunk chunk, std::string& out) {
  Held& held = held_[choice];
  if (held.tokens++ > 0) chunk.text.insert(0, held.chunk.text);
  held.chunk = std::move(chunk);
  if (held.tokens >= token_batch_ || !std::exchange(held.begun, true)) add_held(choice, out);
}

void LiveAnswer::add_held(std::size_t choice, std::string& out) {
  if (token_batch_ > 1 && std::exchange(held_[choice].tokens, 0) > 0) {
    format_->add(choice, held_[choice].chunk, out);
  }
}

void LiveAnswer::fail(const Error& error, std::string& out) {
  for (std::size_t i = 0; i < held_.size(); ++i) add_held(i, out);
  feed_ ? feed_->fail(error, out) : format_->fail(error, out);
}

void LiveAnswer::notify_when_ready(const std::function<void()>& wake) {
  if (feed_) feed_->notify_when_ready(wake);
  for (const auto& choice : choices_) {
    if (choice) choice->notify_when_ready(wake);
  }
}

}  // namespace mlxs
