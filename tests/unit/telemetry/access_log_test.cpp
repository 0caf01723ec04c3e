// The access log's line: for a person and as JSON.
#include "telemetry/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mlxs {
namespace {

using testing::HasSubstr;
using testing::Not;

RequestReport report() {
  RequestReport report;
  report.start = {.id = "req-1",
                  .method = "POST",
                  .path = "/v1/chat\ninfo forged",
                  .peer = "127.0.0.1",
                  .tenant = "alice",
                  .model = "m",
                  .received = TimePoint(std::chrono::hours(1)),
                  .context = new_trace(),
                  .facts = {.operation = "chat", .prompt = R"([{"role":"user"}])"}};
  RequestTimeline choice;
  choice.finish = "error";
  choice.error = "line\nbreak \xff";
  choice.prompt_tokens = 7;
  choice.ttft_seconds = 0.0123456;
  choice.total_seconds = 0.5;
  report.choices = {choice};
  report.choices_expected = 1;
  report.end = TraceEnd{.at = report.start.received + std::chrono::milliseconds(600), .status = 500};
  return report;
}

TEST(AccessLog, ALineStaysALine) {
  const std::string text = access_text(report());
  EXPECT_THAT(text, HasSubstr(R"(POST "/v1/chat\u000ainfo forged" 500 600.0 ms id=req-1 trace=)"));
  EXPECT_THAT(text, HasSubstr("tenant=alice model=m prompt=7"));
  EXPECT_THAT(text, Not(HasSubstr("\n")));
}

TEST(AccessLog, TheMembersAreJsonWhateverClientsSend) {
  const auto json = nlohmann::json::parse("{" + access_fields(report()) + "}");
  EXPECT_EQ(json["path"], "/v1/chat\ninfo forged");
  EXPECT_EQ(json["status"], 500);
  EXPECT_EQ(json["ttft_ms"], 12.346);
  EXPECT_EQ(json["e2e_ms"], 600.0);
  EXPECT_EQ(json["prompt"][0]["role"], "user");
  EXPECT_EQ(json["trace_id"].get<std::string>().size(), 32u);
}

TEST(AccessLog, AClientThatLeftHasNoStatus) {
  RequestReport gone = report();
  gone.end->status = 0;
  gone.choices.clear();
  const auto json = nlohmann::json::parse("{" + access_fields(gone) + "}");
  EXPECT_TRUE(json["status"].is_null());
  EXPECT_FALSE(json.contains("ttft_ms"));
  EXPECT_THAT(access_text(gone), HasSubstr(R"(forged" gone)"));
}

}  // namespace
}  // namespace mlxs
