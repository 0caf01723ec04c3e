// The disk tier under a whole engine: what one leaves on disk, the next one finds, and nothing broken.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <numeric>
#include <thread>

#include "mlxs/engine.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

class DiskTierTest : public ::testing::Test {
 protected:
  // Another engine over the same folder; the one before ends, and has then written everything.
  Engine& restart() {
    engine_.reset();
    EngineOptions options;
    options.threads = 1;
    options.token_budget = 16;  // prompts in several steps: pages are saved before their request ends
    options.cache_dir = folder_.path().string();
    options.prefix_cache_dir = (folder_.path() / "pages").string();
    engine_ = Engine::create(options);
    engine_->load_model({.model = path_.string(), .served_name = "tiny"});
    return *engine_;
  }

  static std::vector<std::int32_t> tokens(int first, int count) {
    std::vector<std::int32_t> result(static_cast<std::size_t>(count));
    std::iota(result.begin(), result.end(), first);
    return result;
  }
  GenerateResult run(std::vector<std::int32_t> prompt, std::string salt = {}) {
    return engine_->generate({.model = "tiny",
                              .prompt = TokenPrompt{std::move(prompt)},
                              .max_tokens = 8,
                              .temperature = 0,
                              .ignore_eos = true,
                              .cache_salt = std::move(salt)});
  }
  // The engine thread saves when it has nothing else to do.
  void wait_until_saved(std::uint64_t pages) {
    for (int tries = 0; tries < 5000; ++tries) {
      engine_->device_description();  // a task, after which statistics are published
      if (engine_->scheduler_stats().at(0).disk_saved_pages >= pages) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    FAIL() << engine_->scheduler_stats().at(0).disk_saved_pages << " of " << pages << " pages saved";
  }

  test::TempDir folder_;
  std::filesystem::path path_ = test::TinyModel{.broken_token = 200}.write(folder_.path());
  std::unique_ptr<Engine> engine_;
};

TEST_F(DiskTierTest, AnEngineFindsWhatTheOneBeforeComputed) {
  restart();
  const std::vector<std::int32_t> prompt = tokens(10, 100);
  run(prompt);
  const GenerateResult warm = run(prompt);
  run(prompt, "salted");
  EXPECT_EQ(warm.stats.cached_prompt_tokens, 96);
  wait_until_saved(12);

  restart();
  const GenerateResult restored = run(prompt);
  EXPECT_EQ(restored.stats.cached_prompt_tokens, 96);
  EXPECT_EQ(restored.tokens, warm.tokens);
  EXPECT_EQ(run(prompt, "salted").stats.cached_prompt_tokens, 96) << "salts outlive the engine too";
  EXPECT_EQ(run(prompt, "another").stats.cached_prompt_tokens, 0);
  const EngineSchedulerStats stats = engine_->scheduler_stats().at(0);
  EXPECT_TRUE(stats.disk_tier);
  EXPECT_EQ(stats.disk_restored_pages, 12u);
  EXPECT_EQ(stats.disk_damaged_files, 0u);
}

// Pages on disk have all layers, so layers with a window have no pages of their own, and lose no hit.
TEST_F(DiskTierTest, LayersWithAWindowComeBackWhole) {
  const auto folder = folder_.path() / "mixed";
  std::filesystem::create_directories(folder);
  path_ = test::TinyModel{.layers = 4, .window = 40, .sliding = {1, 0, 1, 0}}.write(folder);
  restart();
  const std::vector<std::int32_t> prompt = tokens(10, 100);
  const GenerateResult first = run(prompt);
  EXPECT_EQ(engine_->scheduler_stats().at(0).kv_window_pages_total, 0);
  wait_until_saved(6);
  restart();
  const GenerateResult restored = run(prompt);
  EXPECT_EQ(restored.stats.cached_prompt_tokens, 96);
  EXPECT_EQ(restored.tokens, first.tokens);
  EXPECT_EQ(engine_->scheduler_stats().at(0).disk_restored_pages, 6u);
}

// Its first pages are whole, but a request that failed must leave nothing that another could come to use.
TEST_F(DiskTierTest, PagesThatCannotBeWrittenAreNotCountedAsSaved) {
  restart();
  for (int i = 0; i < 256; ++i) {  // the folders of pages by their names' first byte
    std::ofstream(folder_.path() / "pages" / fmt::format("{:02x}", i)) << "a file where a folder is wanted";
  }
  run(tokens(10, 100));
  EngineSchedulerStats stats;
  for (int tries = 0; tries < 5000 && stats.disk_failed_writes < 6; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stats = engine_->scheduler_stats().at(0);
  }
  EXPECT_GE(stats.disk_failed_writes, 6u);
  EXPECT_EQ(stats.disk_saved_pages, 0u);
}

TEST_F(DiskTierTest, WhatABrokenRequestComputedDoesNotComeBack) {
  restart();
  std::vector<std::int32_t> prompt = tokens(10, 48);
  prompt.push_back(200);
  EXPECT_THROW(run(prompt), Error);
  run(tokens(100, 49));
  wait_until_saved(3);
  restart();
  EXPECT_EQ(run(tokens(100, 49)).stats.cached_prompt_tokens, 48);
  EXPECT_EQ(run(tokens(10, 49)).stats.cached_prompt_tokens, 0);
}

TEST_F(DiskTierTest, NeedsAPrefixCache) {
  EngineOptions options;
  options.prefix_cache = false;
  options.prefix_cache_dir = (folder_.path() / "pages").string();
  EXPECT_THROW(Engine::create(options), Error);
}

}  // namespace
}  // namespace mlxs
