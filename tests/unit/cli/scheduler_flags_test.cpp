// The environment variables of the GPU scheduler: read, clamped to their ranges with a warning, never fatal.
#include "cli/scheduler_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Read {
  AdmissionWindowOptions window;
  std::vector<std::string> warnings;
};

Read read(const std::map<std::string, std::string>& variables, AdmissionWindowOptions base = {}) {
  Read out;
  out.window = window_of_environment(
      base,
      [&](const char* name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional(found->second);
      },
      out.warnings);
  return out;
}

TEST(SchedulerEnvironment, IsOffWithoutAnyVariable) {
  const Read r = read({});
  EXPECT_FALSE(r.window.enabled);
  EXPECT_EQ(r.window.batch_size, 4);
  EXPECT_EQ(r.window.window_ms, 1.0);
  EXPECT_THAT(r.warnings, IsEmpty());
}

TEST(SchedulerEnvironment, TakesValuesWithinTheirRanges) {
  const Read r = read({{"MLX_GPU_SCHEDULER", "ON"},
                       {"MLX_GPU_SCHEDULER_BATCH_SIZE", "16"},
                       {"MLX_GPU_SCHEDULER_WINDOW_MS", "2.5"},
                       {"MLX_GPU_SCHEDULER_P99_THRESHOLD_MS", "250"},
                       {"MLX_FAST_PATH", "off"},
                       {"MLX_ADAPTIVE_WINDOW", "off"},
                       {"MLX_ADAPTIVE_WINDOW_HYSTERESIS", "10"},
                       {"MLX_AUTO_TUNE", "on"},
                       {"MLX_AUTO_TUNE_MAX_BATCH", "12"}});
  EXPECT_THAT(r.warnings, IsEmpty());
  EXPECT_TRUE(r.window.enabled);
  EXPECT_EQ(r.window.batch_size, 16);
  EXPECT_EQ(r.window.window_ms, 2.5);
  EXPECT_EQ(r.window.p99_threshold_ms, 250);
  EXPECT_FALSE(r.window.fast_path);
  EXPECT_FALSE(r.window.adaptive.enabled);
  EXPECT_EQ(r.window.adaptive.hysteresis, 10);
  EXPECT_TRUE(r.window.auto_tune.enabled);
  EXPECT_EQ(r.window.auto_tune.max_batch, 12);
}

TEST(SchedulerEnvironment, ClampsAndSaysSo) {
  const Read r = read({{"MLX_GPU_SCHEDULER_BATCH_SIZE", "99"}, {"MLX_GPU_SCHEDULER_WINDOW_MS", "0.1"}});
  EXPECT_EQ(r.window.batch_size, 16);
  EXPECT_EQ(r.window.window_ms, 0.75);
  EXPECT_THAT(r.warnings,
              ElementsAre(HasSubstr("MLX_GPU_SCHEDULER_BATCH_SIZE=99 is outside 1 … 16: 16"),
                          HasSubstr("MLX_GPU_SCHEDULER_WINDOW_MS=0.1 is outside 0.75 … 5: 0.75")));
}

TEST(SchedulerEnvironment, IgnoresWhatIsNoValueAndSaysSo) {
  const Read r = read({{"MLX_GPU_SCHEDULER", "maybe"}, {"MLX_AUTO_TUNE_INTERVAL", "ten"}});
  EXPECT_FALSE(r.window.enabled);
  EXPECT_EQ(r.window.auto_tune.interval, 10);
  EXPECT_EQ(r.warnings.size(), 2u);
}

TEST(SchedulerEnvironment, ALeastBatchAboveTheMostIsLowered) {
  const Read r = read({{"MLX_AUTO_TUNE_MIN_BATCH", "8"}, {"MLX_AUTO_TUNE_MAX_BATCH", "4"}});
  EXPECT_EQ(r.window.auto_tune.min_batch, 4);
  EXPECT_EQ(r.warnings.size(), 1u);
}

TEST(SchedulerPresets, AreTheOnesOfTheGpuScheduler) {
  const AdmissionWindowOptions latency = window_preset("latency_sensitive");
  EXPECT_TRUE(latency.enabled);
  EXPECT_EQ(latency.window_ms, 0.75);
  EXPECT_EQ(latency.batch_size, 2);
  EXPECT_FALSE(latency.adaptive.enabled);
  EXPECT_TRUE(window_preset("balanced").auto_tune.enabled);
  EXPECT_EQ(window_preset("throughput_optimized").auto_tune.max_batch, 16);
  EXPECT_THROW(window_preset("fastest"), Error);
}

TEST(SchedulerPresets, VariablesWinOverThem) {
  EXPECT_EQ(
      read({{"MLX_GPU_SCHEDULER_BATCH_SIZE", "3"}}, window_preset("latency_sensitive")).window.batch_size, 3);
}

TEST(TenantWeights, AreReadAndRefused) {
  EngineOptions options;
  apply({.tenant_weights = {"alice=2", "a=b=0.5"}}, options);
  ASSERT_EQ(options.tenant_weights.size(), 2u);
  EXPECT_EQ(options.tenant_weights[1].first, "a=b");
  EXPECT_EQ(options.tenant_weights[1].second, 0.5);
  for (const char* wrong : {"alice", "alice=", "alice=-1", "alice=nan", "alice=0"}) {
    EXPECT_THROW(apply({.tenant_weights = {wrong}}, options), Error) << wrong;
  }
}

}  // namespace
}  // namespace mlxs::cli
