#include "engine/publisher.h"

#include <utility>

namespace mlxs {

void Publisher::publish(std::vector<Delivery>& news) {
  for (Delivery& one : news) {
    if (one.sampled && !one.request->stopped()) token(one);
    if (one.ended) end(one);
  }
}

void Publisher::token(Delivery& news) {
  Request& request = *news.request;
  if (observer_) {
    if (news.first) {
      observer_->on_first_token(model_.id, news.gap_seconds);
    } else {
      observer_->on_inter_token(model_.id, news.gap_seconds);
    }
  }
  ++request.published;
  if (!news.shown) return;
  const Sampled& sampled = *news.sampled;
  Detokenizer::Piece piece = request.detokenizer.append(sampled.token);
  Chunk chunk{.type = Chunk::Type::kToken, .text = std::move(piece.text), .token_id = sampled.token};
  if (request.sampling.top_logprobs >= 0) {
    chunk.logprob = sampled.logprob;
    chunk.token_bytes = tokenizer_.token_bytes(sampled.token);
    for (const TokenLogprob& other : sampled.top) {
      chunk.top_logprobs.push_back(
          {other.token, other.logprob, std::string(tokenizer_.token_bytes(other.token))});
    }
  }
  if (request.channel->push(std::move(chunk))) signals_.full(request.id);
  if (!piece.stopped) return;
  request.stopped_at = request.published;
  request.stopped_by = std::move(piece.stop);
  if (!news.ended) signals_.stopped(request.id);
}

void Publisher::end(Delivery& news) {
  Request& request = *news.ended;
  Chunk& last = news.last;
  std::string_view reason = news.reason;
  if (request.stopped()) {  // whatever came later
    request.keep_generated(*request.stopped_at);
    last = {.type = Chunk::Type::kDone, .finish = FinishReason::kStop, .stop = request.stopped_by};
    reason = finish_reason_name(last.finish);
  }
  if (last.type == Chunk::Type::kDone) {
    // A stop string already flushed the detokenizer: flush() is empty then.
    if (Detokenizer::Piece rest = request.detokenizer.flush(); !rest.text.empty()) {
      request.channel->push({.type = Chunk::Type::kToken, .text = std::move(rest.text)});
    }
  }
  last.stats = request.stats(news.now);
  if (observer_) {  // before the client hears of it: who then asks for metrics finds this request in them
    observer_->on_finished({.model = model_.id,
                            .request_id = request.label,
                            .user = request.user,
                            .finish = reason,
                            .prompt_tokens = last.stats.prompt_tokens,
                            .cached_prompt_tokens = last.stats.cached_prompt_tokens,
                            .generated_tokens = last.stats.generated_tokens,
                            .max_tokens = request.max_new_tokens,
                            .queue_seconds = last.stats.queue_seconds,
                            .ttft_seconds = last.stats.ttft_seconds,
                            .e2e_seconds = last.stats.total_seconds,
                            .mask_seconds = to_seconds(request.timeline.mask_time()),
                            .part_seconds = request.timeline.part_seconds(news.now)});
  }
  request.tell_end(model_.id, reason, last.error_message, news.now);
  request.channel->push(std::move(last));
}

}  // namespace mlxs
