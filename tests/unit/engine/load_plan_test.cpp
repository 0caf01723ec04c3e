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
  EXPECT_EQ(plan.kv_bytes_per_token(), 2u * 2 * 2 * (16 + 16));  // layers, KV heads, 16 bits, key and value
  EXPECT_EQ(plan.context, 512);
  EXPECT_EQ(plan.kv_bytes, 512 * plan.kv_bytes_per_token());
  EXPECT_EQ(plan_load(*file, *backend, {}, 64).kv_bytes, 64 * plan.kv_bytes_per_token());
  EXPECT_EQ(plan_load(*file, *backend, {.kv_cache_bytes = 12345}, 64).kv_bytes, 12345u);
  EXPECT_EQ(plan_load(*file, *backend, {.kv_cache_bytes = 12345}, 0).tokens(), 48) << "of 256 bytes each";
  EXPECT_EQ(plan.token_budget, 512);
  EXPECT_EQ(with_budget(plan, {}).token_budget, 512);
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
  plan.kv.page_bytes = 10 * kPageTokens;
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

TEST(LoadPlan, ACacheOfAGivenSizeIsWhatIsShared) {
  LoadPlan plan = example();
  plan.kv_bytes = 330;
  plan.kv_fixed = true;
  EXPECT_EQ(plan.tokens(), 32) << "33, in pages of 16";
  EXPECT_EQ(plan.tokens_each(1), 32);
  EXPECT_EQ(plan.tokens_each(2), 16);
  plan.usable_bytes = 1100 + 160;
  EXPECT_EQ(plan.tokens(), 16) << "no more than there is";
}

// Gemma 3 1B: 22 of 26 layers see 512 tokens; 26 KiB of KV a token.
constexpr KvCut kGemma{.page_bytes = 26 * 16384,
                       .window_bytes = 22 * 16384,
                       .window = 512,
                       .running = 64,
                       .step_tokens = 512,
                       .share = 0.5};

TEST(KvCut, LayersWithAWindowGetWhatTheirRequestsNeed) {
  constexpr std::uint64_t kGiB = 1 << 30;
  const KvPages small = kGemma.of(kGiB);
  EXPECT_EQ(small.window_pages, 1260) << "half of 2520";
  EXPECT_EQ(small.pages, (kGiB / 16384 - 1260 * 22) / 4);
  const KvPages large = kGemma.of(6 * kGiB);
  EXPECT_EQ(large.window_pages, 64 * 35 + 2 * 32) << "enough for all";
  KvCut one = kGemma;
  one.running = 1;
  EXPECT_EQ(one.of(kGiB).window_pages, 2520 / 8) << "prompts stay in the cache";
  one.share = 0;
  EXPECT_EQ(one.of(kGiB).window_pages, 35 + 2 * 32) << "enough for one";
}

TEST(KvCut, FewPagesHaveAllLayers) {
  EXPECT_EQ(kGemma.of(99 * kGemma.page_bytes).window_pages, 0) << "a request needs as many";
  EXPECT_EQ(kGemma.of(99 * kGemma.page_bytes).pages, 99);
  EXPECT_GT(kGemma.of(100 * kGemma.page_bytes).pages, 100);
  EXPECT_EQ(KvCut{.page_bytes = 100}.of(1099).pages, 10);
}

TEST(KvCut, FewestBytesForSoManyPages) {
  KvCut cut = kGemma;
  for (const double share : {0.0, 0.3, 0.5, 0.95}) {
    cut.share = share;
    for (std::int64_t pages = 1; pages < 20000; pages += 1 + pages / 3) {
      const std::uint64_t bytes = cut.bytes_for(pages);
      EXPECT_GE(cut.of(bytes).pages, pages);
      EXPECT_LT(cut.of(bytes - 1).pages, pages);
      const KvPages kv = cut.of(bytes);
      EXPECT_LE(static_cast<std::uint64_t>(kv.pages) *
                        (cut.page_bytes - (kv.window_pages > 0 ? cut.window_bytes : 0)) +
                    static_cast<std::uint64_t>(kv.window_pages) * cut.window_bytes,
                bytes);
    }
  }
}

TEST(KvCut, TokensOfEachRequestFitBothKindsOfPages) {
  const KvPages kv{.pages = 8000, .window_pages = 64 + 10 * 35};
  EXPECT_EQ(kGemma.tokens_each(kv, 1), 8000 * 16);
  EXPECT_EQ(kGemma.tokens_each(kv, 10), 800 * 16);
  EXPECT_EQ(kGemma.tokens_each(kv, 20), 17 * 16) << "20 windows do not fit";
}

// The file says which layers see a window, before any weight is read.
TEST(LoadPlan, KnowsTheLayersWithAWindow) {
  const test::TempDir dir;
  const auto file =
      ModelFile::open(test::TinyModel{.layers = 4, .window = 40, .sliding = {1, 0, 1, 1}}.write(dir.path()));
  const auto backend = make_backend("cpu", {.threads = 1});
  const auto cut = [&](const EngineOptions& engine) { return plan_load(*file, *backend, engine, 0).kv; };
  EXPECT_EQ(cut({}).window, 40);
  EXPECT_EQ(cut({}).page_bytes, 4u * 2 * 16 * (16 + 16) * 2);
  EXPECT_EQ(cut({}).window_bytes, cut({}).page_bytes / 4 * 3);
  EXPECT_EQ(cut({.kv_window_share = 1}).window_bytes, 0u);
  EXPECT_EQ(cut({.prefix_cache_dir = "somewhere"}).window_bytes, 0u);
  EXPECT_EQ(load_model(*file, *backend, nullptr)->config().windowed,
            (std::vector<bool>{true, false, true, true}));
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
