// What the simulated clients send. An open loop (a trace, Poisson arrivals) or a closed one (the next turn of
// a conversation waits for the answer to this one). One thread, the simulator's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kv/chain_hash.h"
#include "sched/scheduler.h"

namespace mlxs {

struct SimRequest {
  SchedRequest request;                 // its id and arrival are the simulator's business
  std::int32_t output_tokens = 1;       // the engine's stop condition; ≤ request.max_new_tokens
  std::int32_t tenant = 0;              // index into Traffic::tenants()
  Duration patience = Duration::max();  // the client leaves if it has no whole answer by then
};

enum class SimEnd { kFinished, kCancelled, kRefused };

class Traffic {
 public:
  virtual ~Traffic() = default;
  // When the next request arrives, counted from TimePoint{}; nullopt: none, unless a running one's end brings
  // it. Never earlier than the last ended() or take().
  virtual std::optional<TimePoint> next_arrival() = 0;
  virtual SimRequest take(RequestId id) = 0;  // that request, and it will be called so
  virtual void ended(RequestId, SimEnd, TimePoint) {}
  virtual const std::vector<std::string>& tenants() const = 0;
};

// The i-th token (from 0) of a simulated answer: a next turn begins with the answers before it.
inline TokenId answer_token(RequestId id, std::int32_t i) {
  return static_cast<TokenId>(mix64(id << 20 ^ static_cast<std::uint64_t>(i)) & 0xffff);
}

}  // namespace mlxs
