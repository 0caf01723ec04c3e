// Who went first, and why, by arrivals and admissions that the test makes up.
#include "engine/admission_history.h"

#include <gtest/gtest.h>

#include <string>

namespace mlxs {
namespace {

using std::chrono::milliseconds;

constexpr TimePoint kStart{std::chrono::hours(1)};

AdmissionHistory::Admitted admitted(std::string id, AdmissionHistory::Arrival arrival,
                                    AdmittedBy how = AdmittedBy::kInTurn) {
  return {
      .who = {.request_id = std::move(id)}, .at = kStart + milliseconds(5), .arrival = arrival, .how = how};
}

std::vector<std::string> claims_of(const WentFirst& others) {
  std::vector<std::string> claims;
  for (const WentFirst::Request& other : others.named) {
    claims.push_back(other.who.request_id + " " +
                     std::string(kClaimNames[static_cast<std::size_t>(other.claim)]));
  }
  return claims;
}

TEST(AdmissionHistory, EachClaimHasItsName) {
  AdmissionHistory history;
  const auto aged = history.arrive(Priority::kLow);
  const auto earlier = history.arrive(Priority::kNormal);
  const auto waiting = history.arrive(Priority::kNormal);
  const auto better = history.arrive(Priority::kHigh);
  const auto later = history.arrive(Priority::kNormal);
  history.add(admitted("a", aged));
  history.add(admitted("b", earlier));
  history.add(admitted("c", better));
  history.add(admitted("d", later));
  history.add(admitted("e", later, AdmittedBy::kOvertook));
  history.add(admitted("f", earlier, AdmittedBy::kReturned));
  history.add(admitted("g", later, AdmittedBy::kRescued));
  const WentFirst others = history.went_first(waiting, kStart);
  EXPECT_EQ(claims_of(others), (std::vector<std::string>{"a age", "b earlier", "c priority", "d fairness",
                                                         "e fits", "f returned", "g deadline"}));
  EXPECT_EQ(others.total, 7);
  EXPECT_EQ(others.older, 0);
  EXPECT_DOUBLE_EQ(others.named.front().at_seconds, 0.005);
  EXPECT_EQ(history.went_first(history.arrive(Priority::kNormal), kStart).total, 0) << "all of it was before";
}

TEST(AdmissionHistory, WhatIsTooLongAgoIsCounted) {
  AdmissionHistory history;
  const auto waiting = history.arrive(Priority::kNormal);
  constexpr int kMore = 10, kAll = static_cast<int>(AdmissionHistory::kKept) + kMore;
  for (int i = 0; i < kAll; ++i) history.add(admitted("x", history.arrive(Priority::kHigh)));
  const WentFirst others = history.went_first(waiting, kStart);
  EXPECT_EQ(others.total, kAll);
  EXPECT_EQ(others.older, kMore);
  EXPECT_EQ(others.by_claim[static_cast<std::size_t>(Claim::kPriority)], kAll - kMore);
  EXPECT_EQ(others.named.size(), AdmissionHistory::kNamed);
}

}  // namespace
}  // namespace mlxs
