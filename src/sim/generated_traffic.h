// Traffic drawn from a seed: Poisson streams, each of one tenant, with bursts, conversations, long prompts
// and clients that give up. Same streams and seed, same requests, whatever the scheduler does with them: only
// the think time of a next turn counts from when the answer ended.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "sim/traffic.h"

namespace mlxs {

struct TrafficStream {
  std::string tenant = "tenant";
  double requests_per_s = 1;               // on average
  std::int64_t requests = 0;               // no conversation begins after this many have begun; 0: no limit
  double from_s = 0, until_s = 1e18;       // conversations begin in between
  double burst_factor = 1;                 // arrivals come this much faster during bursts of burst_s every
  double burst_s = 5, burst_every_s = 60;  // burst_every_s; so much slower between that the average holds
  std::int32_t mean_prompt = 200, mean_output = 100;  // tokens, exponential; at most 8 times the mean
  std::int32_t system_prompt = 0;                     // first tokens, shared by all requests of the stream
  double long_share = 0;                              // of the conversations open with a prompt of
  std::int32_t long_prompt = 4000;                    // half of this to this many tokens, uniformly
  double mean_turns = 1;                              // of a conversation; geometric
  double think_s = 30;                                // between an answer and the next turn; exponential
  std::int32_t max_context = 1 << 20;  // a conversation ends before its prompt + answer exceed it
  double cancel_share = 0;             // of the clients give up after
  double patience_s = 5;               // about this long; exponential
  Priority priority = Priority::kNormal;
};

// Needs one stream at least; throws kInvalidArgument for numbers out of range. Streams of equal tenant names
// are one tenant.
std::unique_ptr<Traffic> generated_traffic(std::span<const TrafficStream> streams, std::uint64_t seed);

}  // namespace mlxs
