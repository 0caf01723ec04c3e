// A request while the engine works on it: its tokens, how it samples, its detokenizer and its channel.
// Made by the submitting thread (validated, tokenized), then owned by the engine thread, and from its end on
// by the publishing one, which alone uses what stands under "publishing" meanwhile.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/ops.h"
#include "base/clock.h"
#include "engine/admission_history.h"
#include "engine/timeline.h"
#include "engine/token_channel.h"
#include "kv/kv_pool.h"
#include "mlxs/engine.h"
#include "sched/scheduler.h"
#include "text/detokenizer.h"
#include "text/grammar.h"

namespace mlxs {

// How often each token stands in the prompt and the answer; kept only when a penalty needs it.
class TokenCounts {
 public:
  void add_prompt(std::span<const TokenId> tokens);
  void add_generated(TokenId token);
  std::span<const TokenCount> view() const { return counts_; }

 private:
  TokenCount& at(TokenId token);
  std::vector<TokenCount> counts_;
  std::unordered_map<TokenId, std::size_t> index_;
};

struct Request {
  Request(RequestId request_id, const GenerateParams& params, std::vector<TokenId> prompt, int token_limit,
          const Tokenizer& tokenizer, std::shared_ptr<TokenChannel> stream, TimelineRecorder times);

  // The sampling of its next token; the spans point into this request. With a grammar, `allowed` must hold
  // its mask by the time they are read.
  SampleRow sample_row() const;
  void compute_mask(const Clock& clock);
  // Whether its grammar, which it has, allows the token, and then goes on with it; false too if that cannot
  // be told.
  bool follow(TokenId token, const Clock& clock);
  // Its grammar, which it has, goes on with the token, unless follow() saw to that. True: nothing can follow.
  bool commit(TokenId token);
  // Tells on_ended. Once.
  void tell_end(std::string_view model, std::string_view reason, std::string_view error, TimePoint now);

  RequestId id;
  std::string label;  // the client's request id
  std::string user;
  std::vector<TokenId> tokens;  // prompt, then generated
  std::int32_t prompt_tokens;
  std::int32_t max_new_tokens;
  std::int32_t cached_prompt_tokens = 0;
  PrefixMiss prefix_miss;
  std::uint64_t cache_salt = 0;
  std::shared_ptr<TokenChannel> channel;

  // Publishing.
  Detokenizer detokenizer;
  std::int32_t published = 0;              // tokens
  std::optional<std::int32_t> stopped_at;  // of these, when a stop string was found
  std::string stopped_by;                  // this one
  bool stopped() const { return stopped_at.has_value(); }

  SampleRow sampling;  // without the spans
  std::vector<TokenBias> bias;
  std::unique_ptr<GrammarMatcher> grammar;  // null: anything goes
  std::vector<std::uint32_t> allowed;       // the grammar's mask, a bit a token
  std::optional<bool> followed;             // what commit() will say of the token that follow() took
  std::vector<TokenId> stop_tokens;
  bool ignore_eos;
  bool penalized;
  TokenCounts counts;

  SloTarget slo;
  AdmissionHistory::Arrival arrival;
  TimelineRecorder timeline;
  std::function<void(RequestTimeline)> on_ended;
  TimePoint queued{}, first_step{};  // zero: not yet

  std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_tokens; }
  void keep_generated(std::int32_t tokens);  // forgets what was sampled after them
  GenerationStats stats(TimePoint now) const;
};

}  // namespace mlxs
