// The candidates of one draw: what is left of a vocabulary after the scans, cut by nucleus and drawn from.
// Pure; any thread.
#pragma once

#include <vector>

#include "base/types.h"

namespace mlxs::cpu {

struct Candidate {
  float logit;
  TokenId token;
  float weight;  // exp((logit - best) / temperature)
};

// Best first; ties to the lowest id.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Keeps the smallest set of best candidates whose weights reach `target` (at least one), in the order in
// which they lie, which is a draw's: whoever keeps the same set, however, draws the same. best: the largest
// logit. scratch: what is in it is lost.
void keep_nucleus(std::vector<Candidate>& candidates, float best, double target,
                  std::vector<Candidate>& scratch);

// The candidate at `uniform` (0 … 1) of the weights, in the order in which they lie. At least one candidate.
TokenId draw_candidate(const std::vector<Candidate>& candidates, double uniform);

}  // namespace mlxs::cpu
