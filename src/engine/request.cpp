#include "engine/request.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/log.h"
#include "engine/stats.h"

namespace mlxs {
namespace {

std::uint64_t random_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

TokenCount& TokenCounts::at(TokenId token) {
  const auto [entry, inserted] = index_.try_emplace(token, counts_.size());
  if (inserted) counts_.push_back({token, 0});
  return counts_[entry->second];
}

void TokenCounts::add_prompt(std::span<const TokenId> tokens) {
  for (const TokenId token : tokens) at(token);
}

void TokenCounts::add_generated(TokenId token) { ++at(token).generated; }

Request::Request(RequestId request_id, const GenerateParams& params, std::vector<TokenId> prompt,
                 int token_limit, const Tokenizer& tokenizer, std::shared_ptr<TokenChannel> stream,
                 TimelineRecorder times)
    : id(request_id),
      label(params.request_id),
      user(params.user),
      tokens(std::move(prompt)),
      prompt_tokens(static_cast<std::int32_t>(tokens.size())),
      max_new_tokens(token_limit),
      channel(std::move(stream)),
      detokenizer(tokenizer, params.stop, params.show_special),
      stop_tokens(params.stop_token_ids),
      ignore_eos(params.ignore_eos),
      penalized(params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                params.frequency_penalty != 0.0f),
      slo{.ttft = from_ms(params.slo_ttft_ms), .tpot = from_ms(params.slo_tpot_ms)},
      timeline(std::move(times)),
      on_ended(params.on_ended) {
  sampling.temperature = params.temperature;
  sampling.top_k = params.top_k;
  sampling.top_p = params.top_p;
  sampling.min_p = params.min_p;
  sampling.repetition_penalty = params.repetition_penalty;
  sampling.presence_penalty = params.presence_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  sampling.seed = params.seed ? *params.seed : random_seed();
  sampling.top_logprobs = params.top_logprobs;
  auto biases = params.logit_bias;
  std::ranges::stable_sort(biases, {}, [](const auto& pair) { return pair.first; });
  for (const auto& [token, value] : biases) {  // a token once
    if (!bias.empty() && bias.back().token == token) {
      bias.back().bias += value;
    } else {
      bias.push_back({token, value});
    }
  }
  if (penalized) counts.add_prompt(tokens);
}

SampleRow Request::sample_row() const {
  SampleRow row = sampling;
  row.draw = static_cast<std::uint64_t>(generated());
  row.bias = bias;
  row.counts = counts.view();
  if (grammar) row.allowed = allowed;
  return row;
}

void Request::compute_mask(const Clock& clock) {
  const TimePoint started = clock.now();
  try {
    grammar->mask(allowed);
  } catch (const Error& error) {  // ends this request, not its step: a row that may draw nothing is invalid
    log::warn("request {}: {}", label, error.full());
    std::ranges::fill(allowed, 0u);
  }
  timeline.masked(clock.now() - started);
}

bool Request::follow(TokenId token, const Clock& clock) {
  const TimePoint started = clock.now();
  bool fits = false;
  try {
    fits = grammar->allows(token);
    if (fits) followed = grammar->commit(token);
  } catch (const Error& error) {  // then its mask, or commit(), will fail as well, and end the request
    log::warn("request {}: {}", label, error.full());
  }
  timeline.masked(clock.now() - started);
  return fits;
}

bool Request::commit(TokenId token) {
  if (!followed) return grammar->commit(token);
  return *std::exchange(followed, std::nullopt);
}

void Request::keep_generated(std::int32_t kept) {
  tokens.resize(static_cast<std::size_t>(prompt_tokens + kept));
  timeline.keep_generated(kept);
}

void Request::tell_end(std::string_view model, std::string_view reason, std::string_view error,
                       TimePoint now) {
  if (!on_ended) return;
  RequestTimeline record = timeline.finish(now);
  record.request_id = label;
  record.model = model;
  record.user = user;
  record.finish = reason;
  record.error = error;
  record.prompt_tokens = prompt_tokens;
  record.cached_prompt_tokens = cached_prompt_tokens;
  record.prefix_miss = miss_reason_name(prefix_miss.reason);
  record.prefix_miss_token = prefix_miss.token;
  std::exchange(on_ended, nullptr)(std::move(record));
}

GenerationStats Request::stats(TimePoint now) const {
  GenerationStats s;
  s.prompt_tokens = prompt_tokens;
  s.cached_prompt_tokens = cached_prompt_tokens;
  s.generated_tokens = generated();
  s.total_seconds = to_seconds(now - timeline.received());
  s.queue_seconds = to_seconds((first_step == TimePoint{} ? now : first_step) - queued);
  const TimePoint first_token = timeline.first_token();
  if (first_token == TimePoint{}) return s;
  s.ttft_seconds = to_seconds(first_token - timeline.received());
  const double decoding = to_seconds(timeline.last_token() - first_token);
  if (s.generated_tokens > 1 && decoding > 0) s.tokens_per_second = (s.generated_tokens - 1) / decoding;
  return s;
}

}  // namespace mlxs
