// W3C Trace Context: what is read, what is refused, what goes out. Cases from the recommendation and its test
// suite.
#include "telemetry/trace_context.h"

#include <gtest/gtest.h>

namespace mlxs {
namespace {

constexpr const char* kTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContext, ReadsTheCallersAndMakesASpanOfItsOwn) {
  const auto context = parse_traceparent(kTrace, "congo=t61rcWkgMzE");
  ASSERT_TRUE(context);
  EXPECT_EQ(hex(context->trace_id), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(hex(context->parent_id), "b7ad6b7169203331");
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(context->state, "congo=t61rcWkgMzE");
  EXPECT_NE(hex(context->span_id), "b7ad6b7169203331");
  const std::string out = traceparent(*context);
  EXPECT_EQ(out, "00-0af7651916cd43dd8448eb211c80319c-" + hex(context->span_id) + "-01");
}

TEST(TraceContext, OnlyTheSampledFlagIsRead) {
  const std::string base = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
  EXPECT_FALSE(parse_traceparent(base + "00", "")->sampled);
  EXPECT_FALSE(parse_traceparent(base + "02", "")->sampled);
  EXPECT_TRUE(parse_traceparent(base + "ff", "")->sampled);
}

TEST(TraceContext, WhatIsNotValidIsNoTrace) {
  for (const char* bad : {
           "",
           "00",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
           "00-00000000000000000000000000000000-b7ad6b7169203331-01",  // no trace id
           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",  // no parent id
           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",  // no version
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",  // upper case
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
           "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
           "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
       }) {
    EXPECT_FALSE(parse_traceparent(bad, "")) << bad;
  }
}

TEST(TraceContext, LaterVersionsMayBeLonger) {
  EXPECT_TRUE(parse_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", ""));
  EXPECT_TRUE(parse_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""));
}

TEST(TraceContext, AShareOfTheTracesIsTaken) {
  int taken = 0;
  constexpr int kTraces = 20'000;
  for (int i = 0; i < kTraces; ++i) taken += in_share(new_trace(), 0.1) ? 1 : 0;
  EXPECT_NEAR(taken, kTraces / 10, 400);  // nine standard deviations
  TraceContext least, most;
  least.trace_id.back() = 0;
  most.trace_id.fill(0xff);
  EXPECT_TRUE(in_share(least, 1e-9));
  EXPECT_FALSE(in_share(least, 0));
  EXPECT_TRUE(in_share(most, 1));
  EXPECT_FALSE(in_share(most, 0.999));
}

}  // namespace
}  // namespace mlxs
