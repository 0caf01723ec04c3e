// Plans against what loading really takes, and the arithmetic of what is left for users.
#include "engine/load_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "mlxs/error.h"
#include "models/model.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

using ::testing::HasSubstr;

TEST(LoadPlan, ForeseesTheBytesThatLoadingTakes) {
  const test::TempDir dir;
  const auto file = ModelFile::open(test::TinyModel{}.write(dir.path()));
  const auto backend = make_backend("cpu", {.threads = 1});
  const LoadPlan plan = plan_load(*file, *backend, {}, 0);
  EXPECT_EQ(plan.weight_bytes, load_model(*file, *backend, nullptr)->weight_bytes());
  EXPECT_EQ(plan.kv_bytes_per_token, 2u * 2 * 2 * (16 + 16));  // layers, KV heads, 16 bits, key and value
  EXPECT_EQ(plan.context, 512);
  EXPECT_EQ(plan.kv_bytes, 512 * plan.kv_bytes_per_token);
  EXPECT_EQ(plan_load(*file, *backend, {}, 64).kv_bytes, 64 * plan.kv_bytes_per_token);
  EXPECT_EQ(plan_load(*file, *backend, {.kv_cache_bytes = 12345}, 64).kv_bytes, 12345u);
  EXPECT_TRUE(plan.fits());
  EXPECT_THROW((void)plan_load(*file, *backend, {}, 513), Error);
  // More rows and more logits need more.
  EXPECT_GT(plan_load(*file, *backend, {.token_budget = 1024}, 0).batch_bytes, plan.batch_bytes);
  EXPECT_GT(plan_load(*file, *backend, {.max_running = 128}, 0).batch_bytes, plan.batch_bytes);
}

TEST(LoadPlan, MoreContextThanTrainedIsRefusedButOfAnEncoder) {
  EXPECT_EQ(context_to_load(0, 512, false, "m"), 0);
  EXPECT_EQ(context_to_load(512, 512, false, "m"), 512);
  EXPECT_EQ(context_to_load(64, 512, true, "m"), 64);
  EXPECT_EQ(context_to_load(8192, 512, true, "m"), 0);
  try {
    (void)context_to_load(8192, 512, false, "m");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.field(), "context_length");
    EXPECT_THAT(error.what(),
                HasSubstr("context_length 8192 exceeds the 512 tokens that 'm' was trained for"));
  }
}

TEST(LoadPlan, LargeModelsRunAloneIfAskedFor) {
  EXPECT_EQ(running_limit({.max_running = 8}, 70'000'000'000), 8);
  EXPECT_EQ(running_limit({.max_running = 8, .large_models_alone = true}, 29'900'000'000), 8);
  EXPECT_EQ(running_limit({.max_running = 8, .large_models_alone = true}, 30'000'000'000), 1);
}

LoadPlan example() {
  LoadPlan plan;
  plan.weight_bytes = 1000;
  plan.batch_bytes = 100;
  plan.kv_bytes_per_token = 10;
  plan.kv_bytes = 160;
  plan.free_bytes = plan.usable_bytes = 1100 + 10 * 100;
  plan.context = 64;
  return plan;
}

TEST(LoadPlan, SharesWhatIsLeftInWholePages) {
  LoadPlan plan = example();
  EXPECT_EQ(plan.tokens(), 96);  // 100, in pages of 16
  EXPECT_EQ(plan.tokens_each(1), 64);
  EXPECT_EQ(plan.tokens_each(2), 48);
  EXPECT_EQ(plan.tokens_each(3), 32);
  EXPECT_EQ(plan.tokens_each(7), 0);
  plan.usable_bytes = 1099;
  EXPECT_EQ(plan.tokens(), 0);
}

TEST(LoadPlan, TakesAShareOfADevicesOwnMemory) {
  DeviceInfo device{.name = "gpu", .description = {}, .memory_bytes = 1000, .free_bytes = 800};
  EXPECT_EQ(usable_bytes(device, {}), 800u) << "the system's memory has other bounds";
  device.own_memory = true;
  EXPECT_EQ(usable_bytes(device, {}), 700u);  // a tenth of all is kept
  EXPECT_EQ(usable_bytes(device, {.gpu_memory_utilization = 0.5}), 300u);
  EXPECT_EQ(usable_bytes(device, {.gpu_memory_utilization = 0.1}), 0u) << "others have more already";
  EXPECT_EQ(usable_bytes(device, {.gpu_memory_utilization = 1}), 800u);
  EXPECT_THROW((void)usable_bytes(device, {.gpu_memory_utilization = 1.1}), Error);
  EXPECT_THROW((void)usable_bytes(device, {.gpu_memory_utilization = 0}), Error);
}

TEST(LoadPlan, RefusesWithTheFigures) {
  LoadPlan plan = example();
  plan.free_bytes = plan.usable_bytes = 1260;
  EXPECT_NO_THROW(require_fit(plan, "m"));
  plan.weight_bytes = 5'000'000'000;
  plan.free_bytes = 4'000'000'000;
  try {
    require_fit(plan, "m");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_THAT(error.what(), HasSubstr("'m' does not fit: 5000 MB of weights"));
    EXPECT_THAT(error.what(), HasSubstr("= 5000 MB, 4000 MB are free"));
    EXPECT_THAT(error.hint(), HasSubstr("--force"));
  }
}

}  // namespace
}  // namespace mlxs
