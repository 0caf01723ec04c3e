#include "backend/mlx/mlx_moe.h"

#include <algorithm>
#include <limits>

namespace mlxs::mlx_backend {
namespace {

constexpr int kWorthSorting = 64;  // choices: below, each reads its expert by itself

// Experts outside the groups with the highest sums of two become -inf. argsort keeps the order of equals.
mx::array keep_best_groups(const mx::array& scores, int groups, int keep) {
  const int rows = scores.shape(0), experts = scores.shape(1), size = experts / groups;
  const mx::array grouped = mx::reshape(scores, {rows, groups, size});
  const mx::array best =
      mx::slice(mx::sort(grouped, -1), {0, 0, std::max(0, size - 2)}, {rows, groups, size});
  const mx::array rank = mx::argsort(mx::argsort(mx::negative(mx::sum(best, -1)), -1), -1);
  const mx::array kept = mx::expand_dims(mx::less(rank, mx::array(keep, mx::uint32)), -1);
  return mx::reshape(mx::where(kept, grouped, mx::array(-std::numeric_limits<float>::infinity())),
                     {rows, experts});
}

}  // namespace

ChosenExperts choose_experts(const mx::array& logits, const std::optional<mx::array>& router_bias,
                             const std::optional<mx::array>& selection_bias, const MoeSpec& spec) {
  mx::array values = router_bias ? logits + *router_bias : logits;
  if (spec.gate == MoeSpec::Gate::kSoftmax) values = mx::softmax(values, -1, true);
  if (spec.gate == MoeSpec::Gate::kSigmoid) values = mx::sigmoid(values);
  mx::array scores = selection_bias ? values + *selection_bias : values;
  if (spec.groups_used < spec.groups) scores = keep_best_groups(scores, spec.groups, spec.groups_used);

  const mx::array experts =
      mx::slice(mx::argsort(mx::negative(scores), -1), {0, 0}, {logits.shape(0), spec.used});
  mx::array weights = mx::take_along_axis(values, experts, -1);
  if (spec.gate == MoeSpec::Gate::kSoftmaxOfChosen) weights = mx::softmax(weights, -1, true);
  if (spec.normalize) weights = weights / (mx::sum(weights, -1, true) + mx::array(1e-20f));
  return {.experts = experts, .weights = weights * mx::array(spec.scale)};
}

ExpertRows::ExpertRows(const mx::array& chosen)
    : rows(chosen.shape(0)),
      used(chosen.shape(1)),
      sorted(rows * used >= kWorthSorting),
      order(mx::arange(0, rows * used, 1, mx::uint32)),
      experts(mx::flatten(chosen)) {
  if (!sorted) return;
  order = mx::argsort(experts, -1);
  experts = mx::take(experts, order, 0);
}

mx::array ExpertRows::spread(const mx::array& x) const {
  return mx::take(x, mx::floor_divide(order, mx::array(used, mx::uint32)), 0);
}

mx::array ExpertRows::mix(const mx::array& y, const mx::array& weights) const {
  const mx::array in_rows = sorted ? mx::take(y, mx::argsort(order, -1), 0) : y;
  return mx::sum(mx::reshape(in_rows, {rows, used, y.shape(1)}) * mx::expand_dims(weights, -1), 1);
}

}  // namespace mlxs::mlx_backend
