// What the simulated clients send, and when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "mlxs/error.h"
#include "sim/generated_traffic.h"
#include "sim/scenarios.h"
#include "sim/trace_traffic.h"

namespace mlxs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Arrival {
  double at_s;
  SimRequest request;
};

// Everything an open loop sends.
std::vector<Arrival> all_of(Traffic& traffic) {
  std::vector<Arrival> all;
  RequestId id = 0;
  for (auto at = traffic.next_arrival(); at; at = traffic.next_arrival())
    all.push_back({to_seconds(*at - TimePoint{}), traffic.take(++id)});
  return all;
}
std::vector<Arrival> all_of(const TrafficStream& stream, std::uint64_t seed = 1) {
  return all_of(*generated_traffic({&stream, 1}, seed));
}

TEST(GeneratedTraffic, HasTheRateAndTheMeansItWasAskedFor) {
  const auto all = all_of({.requests_per_s = 5, .until_s = 4000, .mean_prompt = 300, .mean_output = 80});
  EXPECT_NEAR(static_cast<double>(all.size()), 20000, 500);
  double prompt = 0, output = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_GE(all[i].at_s, i > 0 ? all[i - 1].at_s : 0);
    prompt += static_cast<double>(all[i].request.request.prompt.size());
    output += all[i].request.output_tokens;
  }
  EXPECT_NEAR(prompt / static_cast<double>(all.size()), 300, 10);
  EXPECT_NEAR(output / static_cast<double>(all.size()), 80, 3);
  EXPECT_LT(all.back().at_s, 4000);
}

TEST(GeneratedTraffic, BurstsKeepTheAverage) {
  const auto all = all_of({.requests_per_s = 4, .until_s = 6000, .burst_factor = 6});
  EXPECT_NEAR(static_cast<double>(all.size()), 24000, 1000);
  const auto in_bursts =
      std::ranges::count_if(all, [](const Arrival& a) { return std::fmod(a.at_s, 60) < 5; });
  EXPECT_NEAR(static_cast<double>(in_bursts), 0.5 * 24000, 700)
      << "6 times the rate in a twelfth of the time";
}

TEST(GeneratedTraffic, SameSeedSameRequests) {
  const TrafficStream stream{.requests_per_s = 9, .requests = 200, .long_share = 0.1, .cancel_share = 0.2};
  const auto print = [&](std::uint64_t seed) {
    std::ostringstream out;
    for (const Arrival& a : all_of(stream, seed)) {
      out << a.at_s << ' ' << a.request.output_tokens << ' ' << a.request.patience.count();
      for (const TokenId token : a.request.request.prompt) out << ' ' << token;
    }
    return out.str();
  };
  EXPECT_EQ(print(3), print(3));
  EXPECT_NE(print(3), print(4));
}

TEST(GeneratedTraffic, ANextTurnRepeatsTheConversationAndWaitsForItsAnswer) {
  const TrafficStream stream{.requests_per_s = 1, .requests = 1, .mean_turns = 1e9, .think_s = 10};
  const auto traffic = generated_traffic({&stream, 1}, 1);
  SimRequest turn = traffic->take(1);
  for (RequestId id = 1; id < 20; ++id) {
    EXPECT_FALSE(traffic->next_arrival()) << "the user reads";
    const TimePoint now = TimePoint{} + std::chrono::seconds(100 * id);
    traffic->ended(id, SimEnd::kFinished, now);
    ASSERT_TRUE(traffic->next_arrival());
    EXPECT_GT(*traffic->next_arrival(), now) << "the user thinks";
    std::vector<TokenId> before = turn.request.prompt;
    for (std::int32_t i = 0; i < turn.output_tokens; ++i) before.push_back(answer_token(id, i));
    turn = traffic->take(id + 1);
    ASSERT_GT(turn.request.prompt.size(), before.size());
    EXPECT_TRUE(std::equal(before.begin(), before.end(), turn.request.prompt.begin()));
  }
}

TEST(GeneratedTraffic, AUserWhoGaveUpDoesNotComeBack) {
  const TrafficStream stream{.requests_per_s = 1, .requests = 1, .mean_turns = 1e9};
  const auto traffic = generated_traffic({&stream, 1}, 1);
  traffic->take(1);
  traffic->ended(1, SimEnd::kCancelled, TimePoint{} + std::chrono::seconds(5));
  EXPECT_FALSE(traffic->next_arrival());
}

TEST(GeneratedTraffic, RefusesNumbersOutOfRange) {
  const auto refused = [](const TrafficStream& stream) {
    try {
      generated_traffic({&stream, 1}, 1);
    } catch (const Error& error) {
      return error.field();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refused({.requests_per_s = 0, .requests = 1}), "requests_per_s");
  EXPECT_EQ(refused({.requests_per_s = 1}), "requests") << "it would never end";
  EXPECT_EQ(refused({.requests = 1, .burst_factor = 30}), "burst_factor");
  EXPECT_EQ(refused({.requests = 1, .mean_turns = 0.5}), "mean_turns");
}

TEST(Scenarios, EveryNameIsTrafficThatEnds) {
  for (const ScenarioName& name : scenario_names()) {
    const auto streams = scenario(name.name, {.requests_per_s = 5, .seconds = 100});
    EXPECT_GT(all_of(*generated_traffic(streams, 1)).size(), 100u) << name.name;
  }
  EXPECT_THROW(scenario("storm", {}), Error);
}

TEST(TraceTraffic, PlaysLinesInOrderOfTimeAndSharesBlocks) {
  std::istringstream lines(
      R"({"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [1, 2, 9]})"
      "\n\n"
      R"({"timestamp": 1000, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3], "tenant": "a",)"
      R"( "priority": "high", "cancel_after_ms": 250})"
      "\n"
      R"({"timestamp": 2000, "input_length": 600, "output_length": 1})"
      "\n");
  const auto traffic = trace_traffic(lines, "trace", 2);
  EXPECT_THAT(traffic->tenants(), ElementsAre("trace", "a"));
  const auto all = all_of(*traffic);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_THAT((std::vector{all[0].at_s, all[1].at_s, all[2].at_s}), ElementsAre(0, 0.5, 1))
      << "twice as fast";
  EXPECT_EQ(all[0].request.request.priority, Priority::kHigh);
  EXPECT_EQ(all[0].request.patience, std::chrono::milliseconds(250));
  EXPECT_EQ(all[2].request.patience, Duration::max());
  EXPECT_EQ(all[0].request.tenant, 1);
  EXPECT_EQ(all[2].request.output_tokens, 7);
  const std::vector<TokenId>&a = all[0].request.request.prompt, &b = all[2].request.request.prompt,
        &own = all[1].request.request.prompt;
  EXPECT_EQ(a.size(), 1200u);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 1024, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 1024, a.begin() + 1100, b.begin() + 1024));
  EXPECT_FALSE(std::equal(own.begin(), own.begin() + 512, a.begin()));
}

TEST(TraceTraffic, NamesTheLineOfWhatIsWrong) {
  const std::string good = R"({"timestamp": 1, "input_length": 5, "output_length": 5)";
  const std::map<std::string, std::string> wrong = {
      {"hello", "no JSON object"},
      {"[1]", "no JSON object"},
      {R"({"timestamp": 1, "output_length": 5})", "'input_length' is missing"},
      {R"({"timestamp": -1, "input_length": 5, "output_length": 5})", "timestamp = -1"},
      {R"({"timestamp": "now", "input_length": 5, "output_length": 5})", "timestamp = \"now\""},
      {R"({"timestamp": 1, "input_length": 1e30, "output_length": 5})", "input_length"},
      {good + R"(, "hash_ids": [1, 2]})", "hash_ids do not describe 5 tokens"},
      {good + R"(, "hash_ids": [-1]})", "hash_ids"},
      {good + R"(, "hash_ids": 3})", "hash_ids"},
      {good + R"(, "priority": "urgent"})", "urgent"},
      {good + R"(, "tenant": 3})", "tenant = 3"},
      {good + R"(, "cancel_after_ms": null})", "cancel_after_ms = null"},
      {good + R"(, "model": "m"})", "unknown field 'model'"},
      {"", "no request"}};
  for (const auto& [line, named] : wrong) {
    std::istringstream lines(line.empty() ? "\n" : good + "}\n" + line);
    try {
      trace_traffic(lines, "trace");
      ADD_FAILURE() << "accepted: " << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr(named)) << line;
      EXPECT_THAT(error.what(), HasSubstr(line.empty() ? "trace:1: " : "trace:2: "));
    }
  }
  EXPECT_THROW(trace_file_traffic("/no/such/trace"), Error);
}

}  // namespace
}  // namespace mlxs
