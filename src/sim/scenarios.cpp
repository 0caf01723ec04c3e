#include "sim/scenarios.h"

#include <fmt/format.h>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using Streams = std::vector<TrafficStream>;

TrafficStream users(const ScenarioSize& size, double share, const char* tenant) {
  return {.tenant = tenant,
          .requests_per_s = share * size.requests_per_s,
          .until_s = size.seconds,
          .mean_prompt = 400,
          .mean_output = 150,
          .max_context = size.max_context};
}

Streams steady(const ScenarioSize& size) { return {users(size, 1, "users")}; }

Streams bursty(const ScenarioSize& size) {
  TrafficStream stream = users(size, 1, "users");
  stream.burst_factor = 6;
  return {stream};
}

Streams chat(const ScenarioSize& size) {
  TrafficStream stream = users(size, 1, "users");
  stream.system_prompt = 1000;
  stream.mean_prompt = 100;
  stream.mean_turns = 5;
  stream.cancel_share = 0.03;
  return {stream};
}

Streams long_prompts(const ScenarioSize& size) {
  TrafficStream stream = users(size, 1, "users");
  stream.long_share = 0.05;
  stream.long_prompt = 32768;
  return {stream};
}

// Two tenants as always, and one that sends ten times as much in the middle third.
Streams flood(const ScenarioSize& size) {
  TrafficStream flooding = users(size, 10, "flood");
  flooding.from_s = size.seconds / 3;
  flooding.until_s = 2 * size.seconds / 3;
  return {users(size, 0.5, "alice"), users(size, 0.5, "bob"), flooding};
}

// Everything at once, of four kinds of clients.
Streams mixed(const ScenarioSize& size) {
  TrafficStream critical = users(size, 0.1, "probes");
  critical.priority = Priority::kCritical;
  critical.mean_prompt = 50;
  critical.mean_output = 20;
  TrafficStream people = users(size, 0.5, "chat");
  people.priority = Priority::kHigh;
  people.system_prompt = 1000;
  people.mean_prompt = 100;
  people.mean_turns = 4;
  people.cancel_share = 0.03;
  TrafficStream tools = users(size, 0.3, "agents");
  tools.long_share = 0.1;
  tools.long_prompt = 32768;
  tools.burst_factor = 6;
  TrafficStream batch = users(size, 0.1, "batch");
  batch.priority = Priority::kLow;
  batch.mean_prompt = 2000;
  batch.mean_output = 400;
  return {critical, people, tools, batch};
}

struct Scenario {
  const char* name;
  const char* what;
  Streams (*streams)(const ScenarioSize&);
};
constexpr Scenario kScenarios[] = {
    {"steady", "short prompts, Poisson arrivals", steady},
    {"bursty", "the same, six times as many for 5 s of every minute", bursty},
    {"chat", "conversations of five turns behind one system prompt; some users give up", chat},
    {"long", "one prompt in twenty has 16k to 32k tokens", long_prompts},
    {"flood", "two tenants, and one that sends ten times as much in the middle third", flood},
    {"mixed", "probes, chats, agents with long prompts, batch work: four tenants, four priorities", mixed}};

}  // namespace

std::vector<ScenarioName> scenario_names() {
  std::vector<ScenarioName> names;
  for (const Scenario& scenario : kScenarios) names.push_back({scenario.name, scenario.what});
  return names;
}

std::vector<TrafficStream> scenario(std::string_view name, const ScenarioSize& size) {
  std::string known;
  for (const Scenario& scenario : kScenarios) {
    if (name == scenario.name) return scenario.streams(size);
    known += fmt::format("{}{}", known.empty() ? "" : ", ", scenario.name);
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("no scenario '{}'", name), "known: " + known,
              "scenario");
}

}  // namespace mlxs
