#include "sim/generated_traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <utility>

#include "mlxs/error.h"
#include "sim/random.h"

namespace mlxs {
namespace {

TimePoint at_seconds(double seconds) {
  return TimePoint{} + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

TokenId any_token(std::uint64_t bits) { return static_cast<TokenId>(bits & 0xffff); }

void validate(const TrafficStream& s) {
  const auto require = [&](bool holds, const char* field, double value) {
    if (holds) return;
    throw Error(ErrorCode::kInvalidArgument, fmt::format("stream '{}': {} = {}", s.tenant, field, value),
                "see generated_traffic.h for the ranges", field);
  };
  require(s.requests_per_s > 0, "requests_per_s", s.requests_per_s);
  require(s.requests > 0 || s.until_s < 1e18, "requests", static_cast<double>(s.requests));
  require(s.burst_factor >= 1 && s.burst_factor * s.burst_s <= s.burst_every_s, "burst_factor",
          s.burst_factor);
  require(s.mean_prompt >= 1, "mean_prompt", s.mean_prompt);
  require(s.mean_output >= 1, "mean_output", s.mean_output);
  require(s.system_prompt >= 0, "system_prompt", s.system_prompt);
  require(s.long_prompt >= 2, "long_prompt", s.long_prompt);
  require(s.mean_turns >= 1, "mean_turns", s.mean_turns);
}

// One conversation: its own random numbers, so that it is the same under every scheduler.
struct Conversation {
  const TrafficStream* stream;
  Random random;
  std::int32_t tenant;
  std::vector<TokenId> prompt;  // of the next turn
  std::int32_t output = 0;      // of the next turn
  bool first = true;
};

class GeneratedTraffic final : public Traffic {
 public:
  GeneratedTraffic(std::span<const TrafficStream> streams, std::uint64_t seed) {
    if (streams.empty()) throw Error(ErrorCode::kInvalidArgument, "traffic without a stream");
    for (const TrafficStream& stream : streams) {
      validate(stream);
      const std::uint64_t own_seed = mix64(seed + streams_.size() * 0x9e3779b97f4a7c15u);
      streams_.push_back({stream, Random(own_seed), own_seed, tenant_index(stream.tenant), stream.from_s});
    }
    for (Stream& stream : streams_) advance(stream);
  }

  std::optional<TimePoint> next_arrival() override {
    const Stream* opening = next_opening();
    if (opening == nullptr && turns_.empty()) return std::nullopt;
    if (opening == nullptr) return turns_.top().at;
    const TimePoint opens = at_seconds(opening->next_s);
    return turns_.empty() ? opens : std::min(opens, turns_.top().at);
  }

  SimRequest take(RequestId id) override {
    Stream* opening = next_opening();
    if (opening != nullptr && (turns_.empty() || at_seconds(opening->next_s) <= turns_.top().at)) {
      Conversation conversation = open(*opening);
      advance(*opening);
      return request_of(std::move(conversation), id);
    }
    const auto node = waiting_.extract(turns_.top().conversation);
    turns_.pop();
    return request_of(std::move(node.mapped()), id);
  }

  void ended(RequestId id, SimEnd how, TimePoint now) override {
    auto node = talking_.extract(id);
    if (node.empty()) return;
    Conversation& c = node.mapped();
    const TrafficStream& s = *c.stream;
    if (how != SimEnd::kFinished || c.random.uniform() >= 1 - 1 / s.mean_turns) return;
    for (std::int32_t i = 0; i < c.output; ++i) c.prompt.push_back(answer_token(id, i));
    say(c, c.random.length(s.mean_prompt));
    const double think = s.think_s * c.random.exponential();
    if (static_cast<std::int64_t>(c.prompt.size()) + c.output > s.max_context) return;
    const std::uint64_t key = ++conversations_;
    turns_.push({now + (at_seconds(think) - TimePoint{}), key});
    waiting_.emplace(key, std::move(c));
  }

  const std::vector<std::string>& tenants() const override { return tenants_; }

 private:
  struct Stream {
    TrafficStream spec;
    Random random;
    std::uint64_t seed;
    std::int32_t tenant;
    double next_s;  // when the next conversation opens
    std::int64_t opened = 0;
    bool over = false;
  };
  struct Turn {
    TimePoint at;
    std::uint64_t conversation;
    bool operator>(const Turn& other) const {
      return std::pair(at, conversation) > std::pair(other.at, other.conversation);
    }
  };

  std::int32_t tenant_index(const std::string& name) {
    const auto index = std::ranges::find(tenants_, name) - tenants_.begin();
    if (index == std::ssize(tenants_)) tenants_.push_back(name);
    return static_cast<std::int32_t>(index);
  }

  Stream* next_opening() {
    Stream* best = nullptr;
    for (Stream& stream : streams_) {
      if (!stream.over && (best == nullptr || stream.next_s < best->next_s)) best = &stream;
    }
    return best;
  }

  // A Poisson process whose rate alternates: unit-mean steps are spent at the rate of the moment.
  void advance(Stream& stream) {
    const TrafficStream& s = stream.spec;
    const double mean = s.requests_per_s / s.mean_turns;
    const double burst = mean * s.burst_factor, calm_s = s.burst_every_s - s.burst_s;
    const double calm = s.burst_factor > 1 ? (mean * s.burst_every_s - burst * s.burst_s) / calm_s : mean;
    double left = stream.random.exponential();
    while (s.burst_factor > 1) {
      const double phase = std::fmod(stream.next_s, s.burst_every_s);
      const bool bursting = phase < s.burst_s;
      const double rate = bursting ? burst : calm;
      const double until_change = (bursting ? s.burst_s : s.burst_every_s) - phase;
      if (left <= rate * until_change) {
        stream.next_s += rate > 0 ? left / rate : until_change;
        break;
      }
      left -= rate * until_change;
      stream.next_s += until_change;
    }
    if (s.burst_factor <= 1) stream.next_s += left / mean;
    stream.over = stream.next_s >= s.until_s || (s.requests > 0 && stream.opened >= s.requests);
  }

  Conversation open(Stream& stream) {
    const TrafficStream& s = stream.spec;
    ++stream.opened;
    Conversation c{.stream = &stream.spec,
                   .random = Random(mix64(stream.seed ^ static_cast<std::uint64_t>(stream.opened))),
                   .tenant = stream.tenant};
    const bool is_long = c.random.uniform() < s.long_share;
    const std::int32_t own =
        is_long ? s.long_prompt / 2 + static_cast<std::int32_t>(c.random.uniform() * (s.long_prompt / 2 + 1))
                : c.random.length(s.mean_prompt);
    c.prompt.reserve(static_cast<std::size_t>(s.system_prompt + own));
    for (std::int32_t i = 0; i < s.system_prompt; ++i) {
      c.prompt.push_back(any_token(mix64(stream.seed + static_cast<std::uint64_t>(i))));
    }
    say(c, own);
    return c;
  }

  static void say(Conversation& c, std::int32_t tokens) {
    for (std::int32_t i = 0; i < tokens; ++i) c.prompt.push_back(any_token(c.random.bits()));
    c.output = c.random.length(c.stream->mean_output);
  }

  SimRequest request_of(Conversation&& c, RequestId id) {
    const TrafficStream& s = *c.stream;
    SimRequest out;
    out.request.prompt = c.prompt;
    out.request.max_new_tokens = out.output_tokens = c.output;
    out.request.priority = s.priority;
    out.tenant = c.tenant;
    const bool impatient = c.random.uniform() < s.cancel_share;
    const double patience = s.patience_s * c.random.exponential();
    if (impatient) out.patience = at_seconds(patience) - TimePoint{};
    if (s.mean_turns > 1) talking_.emplace(id, std::move(c));
    return out;
  }

  std::vector<std::string> tenants_;
  std::vector<Stream> streams_;
  std::uint64_t conversations_ = 0;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns_;  // next turns of `waiting_`
  std::unordered_map<std::uint64_t, Conversation> waiting_;             // users who think
  std::unordered_map<RequestId, Conversation> talking_;                 // users who are being answered
};

}  // namespace

std::unique_ptr<Traffic> generated_traffic(std::span<const TrafficStream> streams, std::uint64_t seed) {
  return std::make_unique<GeneratedTraffic>(streams, seed);
}

}  // namespace mlxs
