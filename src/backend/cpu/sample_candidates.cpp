#include "backend/cpu/sample_candidates.h"

#include <algorithm>
#include <cmath>

namespace mlxs::cpu {
namespace {

// The smallest set of best ones of [low, high) whose weights, with `before`, reach `target` (at least one):
// its end, in order from `low`. Quickselect by weight.
std::vector<Candidate>::iterator nucleus_end(std::vector<Candidate>::iterator low,
                                             std::vector<Candidate>::iterator high, double before,
                                             double target) {
  while (high - low > 32) {
    const auto middle = low + (high - low) / 2;
    std::nth_element(low, middle, high, better);
    double half = 0.0;
    for (auto it = low; it != middle; ++it) half += static_cast<double>(it->weight);
    if (before + half >= target) {
      high = middle;
    } else {
      before += half;
      low = middle;
    }
  }
  std::sort(low, high, better);
  while (low != high) {
    before += static_cast<double>(low->weight);
    ++low;
    if (before >= target) break;
  }
  return low;
}

}  // namespace

// Weights are summed by bands of logits first, so that only the band in which the target falls has to be
// ordered.
void keep_nucleus(std::vector<Candidate>& candidates, float best, double target,
                  std::vector<Candidate>& scratch) {
  constexpr int kBands = 256;
  float worst = best;
  for (const Candidate& c : candidates) worst = std::min(worst, c.logit);
  const float bands_per_logit = static_cast<float>(kBands - 1) / (best - worst);
  if (candidates.size() < 128 || !(bands_per_logit > 0.0f) || !std::isfinite(bands_per_logit)) {
    scratch = candidates;
    const Candidate last = *(nucleus_end(scratch.begin(), scratch.end(), 0.0, target) - 1);
    std::erase_if(candidates, [&](const Candidate& c) { return better(last, c); });
    return;
  }
  const auto band_of = [&](const Candidate& c) {
    return static_cast<int>((best - c.logit) * bands_per_logit);
  };
  double mass[kBands + 1] = {};
  for (const Candidate& c : candidates) mass[band_of(c)] += static_cast<double>(c.weight);
  int edge = 0;
  double before = 0.0;
  while (edge < kBands && before + mass[edge] < target) before += mass[edge++];
  scratch.clear();
  for (const Candidate& c : candidates) {
    if (band_of(c) == edge) scratch.push_back(c);
  }
  if (scratch.empty()) return;  // rounding: all of them do not reach it
  const Candidate last = *(nucleus_end(scratch.begin(), scratch.end(), before, target) - 1);
  std::erase_if(candidates, [&](const Candidate& c) { return better(last, c); });
}

TokenId draw_candidate(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0.0;
  for (const Candidate& c : candidates) total += static_cast<double>(c.weight);
  double target = uniform * total;
  TokenId last = candidates.front().token;
  for (const Candidate& c : candidates) {
    if (c.weight <= 0.0f) continue;
    last = c.token;
    if (target < static_cast<double>(c.weight)) break;
    target -= static_cast<double>(c.weight);
  }
  return last;
}

}  // namespace mlxs::cpu
