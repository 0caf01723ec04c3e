// What a step costs: seconds = fixed + tokens × slope, fitted to the measured steps by least squares that
// forget (half-life: 35 steps). For predictions and budgets. A value; never fails.
#pragma once

#include <algorithm>

namespace mlxs {

class StepCost {
 public:
  void add(int tokens, double seconds) {
    if (tokens < 1 || !(seconds > 0)) return;
    // A step that the machine interrupted is not what steps cost.
    if (known()) seconds = std::min(seconds, kOutlier * of(tokens));
    const double x = tokens;
    largest_ = std::max(largest_, tokens);
    for (double* sum : {&n_, &x_, &y_, &xx_, &xy_}) *sum *= kKept;
    n_ += 1;
    x_ += x;
    y_ += seconds;
    xx_ += x * x;
    xy_ += x * seconds;
    fit();
  }

  bool known() const { return n_ > 0; }
  double fixed() const { return fixed_; }      // seconds of a step before its first token
  double per_token() const { return slope_; }  // seconds
  double of(double tokens) const { return fixed_ + slope_ * tokens; }
  int largest() const { return largest_; }  // tokens of a step that was measured

 private:
  static constexpr double kKept = 0.98;
  static constexpr double kOutlier = 8;

  void fit() {
    const double spread = n_ * xx_ - x_ * x_;  // n² × variance of the tokens
    // Steps of one size (a lone answer) say nothing of the slope: what prompts taught before is kept.
    if (spread > kLeastVariance * n_ * n_) slope_ = std::max(0.0, (n_ * xy_ - x_ * y_) / spread);
    slope_ = std::min(slope_, y_ / x_);
    fixed_ = (y_ - slope_ * x_) / n_;
  }

  static constexpr double kLeastVariance = 4;  // tokens²

  double n_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;  // decayed sums; x: tokens, y: seconds
  double fixed_ = 0, slope_ = 0;
  int largest_ = 0;
};

}  // namespace mlxs
