#include "engine/admission_history.h"

#include <algorithm>
#include <utility>

namespace mlxs {
namespace {

// The plainest that holds.
Claim claim_of(const AdmissionHistory::Admitted& other, const AdmissionHistory::Arrival& waiting) {
  const bool earlier = other.arrival.number < waiting.number;
  if (other.how == AdmittedBy::kReturned) return Claim::kReturned;
  if (other.arrival.priority < waiting.priority) return Claim::kPriority;
  if (earlier && other.arrival.priority == waiting.priority) return Claim::kEarlier;
  if (other.how == AdmittedBy::kOvertook) return Claim::kFits;
  if (other.how == AdmittedBy::kRescued) return Claim::kDeadline;
  // Who came later and asked for no better tier can only have got less before.
  return earlier ? Claim::kAge : Claim::kFairness;
}

}  // namespace

void AdmissionHistory::add(Admitted admitted) {
  ++admissions_;
  if (latest_.size() == kKept) latest_.pop_front();
  latest_.push_back(std::move(admitted));
}

WentFirst AdmissionHistory::went_first(const Arrival& waiting, TimePoint received) const {
  WentFirst found;
  const std::uint64_t since = admissions_ - waiting.admissions_before;
  const std::size_t known = std::min<std::uint64_t>(since, latest_.size());
  found.total = static_cast<int>(since);
  found.older = static_cast<int>(since - known);
  for (auto other = latest_.end() - static_cast<std::ptrdiff_t>(known); other != latest_.end(); ++other) {
    const Claim claim = claim_of(*other, waiting);
    ++found.by_claim[static_cast<std::size_t>(claim)];
    if (found.named.size() < kNamed) {
      found.named.push_back(
          {.who = other->who, .at_seconds = to_seconds(other->at - received), .claim = claim});
    }
  }
  return found;
}

}  // namespace mlxs
