#include "admit/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr int kLongestRetrySeconds = 60;
constexpr double kSmoothing = 0.1;  // weight of the newest gap: about the last ten count

[[noreturn]] void refuse(std::string field, const std::string& what, const std::string& remedy) {
  throw Error(ErrorCode::kInvalidArgument, what, remedy, std::move(field));
}

void check_limit(const char* name, int value) {
  if (value < 1)
    refuse(name, fmt::format("{} = {}", name, value), fmt::format("{} must be at least 1", name));
}

}  // namespace

Admission::Admission(AdmissionLimits limits, const Clock& clock) : limits_(limits), clock_(clock) {
  check_limit("max_in_flight", limits.max_in_flight);
  check_limit("max_choices", limits.max_choices);
  check_limit("max_stop_strings", limits.max_stop_strings);
}

void Admission::check(const RequestShape& shape) const {
  if (shape.stop_strings > limits_.max_stop_strings) {
    refuse("stop", fmt::format("stop has {} strings", shape.stop_strings),
           fmt::format("at most {} are allowed", limits_.max_stop_strings));
  }
  const int most = std::min(limits_.max_choices, limits_.max_in_flight);
  const auto choices = static_cast<long long>(shape.prompts) * shape.choices_per_prompt;
  if (choices <= most) return;
  if (shape.prompts == 1) {
    refuse("n", fmt::format("n = {} is too many", shape.choices_per_prompt),
           fmt::format("at most {} choices a request", most));
  }
  refuse("prompt",
         fmt::format("{} prompts × n = {} are {} choices", shape.prompts, shape.choices_per_prompt, choices),
         fmt::format("at most {} a request: send the prompts in several", most));
}

std::optional<Admission::Ticket> Admission::try_enter(int places) {
  const std::lock_guard lock(mutex_);
  if (in_flight_ + places > limits_.max_in_flight) return std::nullopt;
  in_flight_ += places;
  return Ticket(*this, places);
}

Admission::Ticket Admission::enter(int places) {
  if (std::optional<Ticket> ticket = try_enter(places)) return std::move(*ticket);
  const int seconds = retry_after_s(places);
  Error error(ErrorCode::kOverloaded, fmt::format("{} sequences are in flight already", in_flight()),
              fmt::format("try again in {} s", seconds));
  error.set_retry_after_s(seconds);
  throw error;
}

int Admission::retry_after_s(int places) const {
  const std::lock_guard lock(mutex_);
  const int missing = std::max(1, in_flight_ + places - limits_.max_in_flight);
  const double seconds = std::ceil(missing * seconds_per_place_);
  return static_cast<int>(std::clamp<double>(seconds, 1, kLongestRetrySeconds));
}

int Admission::in_flight() const {
  const std::lock_guard lock(mutex_);
  return in_flight_;
}

void Admission::leave(int places) {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  // A gap while others stay tells the pace of the work; one that the last to leave ends tells only the
  // demand.
  if (last_leave_ && in_flight_ > places) {
    const double gap = to_seconds(now - *last_leave_) / places;
    seconds_per_place_ =
        seconds_per_place_ == 0 ? gap : seconds_per_place_ + kSmoothing * (gap - seconds_per_place_);
  }
  last_leave_ = now;
  in_flight_ -= places;
}

Admission::Ticket& Admission::Ticket::operator=(Ticket&& other) noexcept {
  if (this == &other) return *this;
  release(places_);
  owner_ = std::exchange(other.owner_, nullptr);
  places_ = std::exchange(other.places_, 0);
  return *this;
}

void Admission::Ticket::release(int places) {
  places = std::min(places, places_);
  if (places == 0) return;
  places_ -= places;
  owner_->leave(places);
}

}  // namespace mlxs
