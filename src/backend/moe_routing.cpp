#include "backend/moe_routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mlxs {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void softmax(std::span<float> values) {
  const float most = *std::ranges::max_element(values);
  float sum = 0.0f;
  for (float& value : values) sum += value = std::exp(value - most);
  for (float& value : values) value /= sum;
}

// Experts outside the best groups get kNever.
void keep_best_groups(std::span<float> scores, std::int32_t groups, std::int32_t keep) {
  const std::size_t size = scores.size() / static_cast<std::size_t>(groups);
  std::vector<float> totals(static_cast<std::size_t>(groups));
  for (std::size_t g = 0; g < totals.size(); ++g) {
    float best = kNever, second = kNever;
    for (const float score : scores.subspan(g * size, size)) {
      if (score > best) {
        second = best;
        best = score;
      } else if (score > second) {
        second = score;
      }
    }
    totals[g] = size > 1 ? best + second : best;
  }
  for (std::size_t g = 0; g < totals.size(); ++g) {
    std::int32_t better = 0;
    for (std::size_t other = 0; other < totals.size(); ++other)
      better += totals[other] > totals[g] || (totals[other] == totals[g] && other < g);
    if (better >= keep) std::ranges::fill(scores.subspan(g * size, size), kNever);
  }
}

}  // namespace

void route(std::span<const float> logits, std::span<const float> router_bias,
           std::span<const float> selection_bias, const MoeSpec& spec, MoeRouting& out) {
  const std::size_t experts = spec.experts.size(), rows = logits.size() / experts;
  const auto used = static_cast<std::size_t>(spec.used);
  out.used = spec.used;
  out.weights.resize(rows * used);
  out.places.resize(rows * used);
  out.rows.resize(rows * used);
  out.first_row.assign(experts + 1, 0);

  std::vector<float> values(experts), scores(experts);
  std::vector<std::int32_t> chosen(rows * used);
  for (std::size_t row = 0; row < rows; ++row) {
    std::copy_n(&logits[row * experts], experts, values.data());
    for (std::size_t e = 0; e < router_bias.size(); ++e) values[e] += router_bias[e];
    if (spec.gate == MoeSpec::Gate::kSoftmax) softmax(values);
    if (spec.gate == MoeSpec::Gate::kSigmoid) {
      for (float& value : values) value = 1.0f / (1.0f + std::exp(-value));
    }
    scores = values;
    for (std::size_t e = 0; e < selection_bias.size(); ++e) scores[e] += selection_bias[e];
    if (spec.groups_used < spec.groups) keep_best_groups(scores, spec.groups, spec.groups_used);

    const std::span<float> weights = std::span(out.weights).subspan(row * used, used);
    std::vector<bool> taken(experts, false);
    for (std::size_t j = 0; j < used; ++j) {
      std::size_t best = experts;
      for (std::size_t e = 0; e < experts; ++e) {
        if (!taken[e] && (best == experts || scores[e] > scores[best])) best = e;
      }
      taken[best] = true;
      chosen[row * used + j] = static_cast<std::int32_t>(best);
      weights[j] = values[best];
      ++out.first_row[best + 1];
    }
    if (spec.gate == MoeSpec::Gate::kSoftmaxOfChosen) softmax(weights);
    float sum = 0.0f;
    for (const float weight : weights) sum += weight;
    const float factor = spec.scale / (spec.normalize ? sum + 1e-20f : 1.0f);
    for (float& weight : weights) weight *= factor;
  }
  for (std::size_t e = 0; e < experts; ++e) out.first_row[e + 1] += out.first_row[e];
  std::vector<std::int32_t> next(out.first_row.begin(), out.first_row.end() - 1);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::int32_t place = next[static_cast<std::size_t>(chosen[i])]++;
    out.places[i] = place;
    out.rows[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(i / used);
  }
}

}  // namespace mlxs
