#include "admit/admission.h"

#include <gtest/gtest.h>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;

std::string refused_field(const Admission& admission, const RequestShape& shape) {
  try {
    admission.check(shape);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.field();
  }
  return "";
}

TEST(Admission, RefusesLimitsBelowOne) {
  const ManualClock clock;
  EXPECT_THROW(Admission({.max_in_flight = 0}, clock), Error);
  EXPECT_THROW(Admission({.max_choices = 0}, clock), Error);
  EXPECT_THROW(Admission({.max_stop_strings = -1}, clock), Error);
}

TEST(Admission, NamesTheFieldThatAsksForTooMuch) {
  const ManualClock clock;
  const Admission admission({.max_in_flight = 100, .max_choices = 8, .max_stop_strings = 4}, clock);
  EXPECT_EQ(refused_field(admission, {.prompts = 1, .choices_per_prompt = 8, .stop_strings = 4}), "");
  EXPECT_EQ(refused_field(admission, {.prompts = 1, .choices_per_prompt = 9}), "n");
  EXPECT_EQ(refused_field(admission, {.prompts = 3, .choices_per_prompt = 3}), "prompt");
  EXPECT_EQ(refused_field(admission, {.stop_strings = 5}), "stop");
  // 2^16 × 2^16 must not wrap around to something small.
  EXPECT_EQ(refused_field(admission, {.prompts = 1 << 16, .choices_per_prompt = 1 << 16}), "prompt");
}

TEST(Admission, ARequestThatCouldNeverEnterIsRefusedNotAskedToComeBack) {
  const ManualClock clock;
  const Admission admission({.max_in_flight = 4, .max_choices = 8}, clock);
  EXPECT_EQ(refused_field(admission, {.choices_per_prompt = 5}), "n");
}

TEST(Admission, TicketsHoldTheirPlacesUntilTheyGo) {
  const ManualClock clock;
  Admission admission({.max_in_flight = 4}, clock);
  auto first = admission.try_enter(3);
  ASSERT_TRUE(first);
  EXPECT_FALSE(admission.try_enter(2));
  auto second = admission.try_enter(1);
  ASSERT_TRUE(second);
  EXPECT_EQ(admission.in_flight(), 4);

  first->release(2);
  EXPECT_EQ(admission.in_flight(), 2);
  first->release(100);  // no more than it holds
  EXPECT_EQ(admission.in_flight(), 1);
  first.reset();
  EXPECT_EQ(admission.in_flight(), 1);

  Admission::Ticket moved = std::move(*second);
  second.reset();
  EXPECT_EQ(admission.in_flight(), 1);
  moved = Admission::Ticket();
  EXPECT_EQ(admission.in_flight(), 0);
}

TEST(Admission, RetryAfterFollowsTheMeasuredPace) {
  ManualClock clock;
  Admission admission({.max_in_flight = 10}, clock);
  std::vector<Admission::Ticket> inside;
  for (int i = 0; i < 10; ++i) inside.push_back(std::move(*admission.try_enter(1)));
  EXPECT_EQ(admission.retry_after_s(1), 1);  // nothing measured yet

  // A place every three seconds, taken again at once.
  for (int i = 0; i < 20; ++i) {
    clock.advance(milliseconds(3000));
    inside.erase(inside.begin());
    inside.push_back(std::move(*admission.try_enter(1)));
  }
  EXPECT_EQ(admission.retry_after_s(1), 3);
  EXPECT_EQ(admission.retry_after_s(4), 12);
  EXPECT_EQ(admission.retry_after_s(10), 30);
  EXPECT_EQ(admission.retry_after_s(1000), 60);  // nobody is sent away for longer
}

TEST(Admission, AnIdleServersGapsSayNothingAboutItsPace) {
  ManualClock clock;
  Admission admission({.max_in_flight = 1}, clock);
  for (int i = 0; i < 5; ++i) {
    clock.advance(milliseconds(50'000));
    const auto ticket = admission.try_enter(1);
    clock.advance(milliseconds(100));
  }
  EXPECT_EQ(admission.retry_after_s(1), 1);
}

}  // namespace
}  // namespace mlxs
