// The engine on a GPU with little memory: the KV cache gets what is left, and a step that does not fit is
// made smaller.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "blocks.h"
#include "mlxs/engine.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kMemory = std::size_t{48} << 20;

class CudaMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    emulated::set_device_memory(kMemory);
    path_ = test::TinyModel{}.write(dir_.path());
  }
  void TearDown() override {
    engine_.reset();
    EXPECT_EQ(emulated::device_memory_taken(), 0u);
    emulated::set_device_memory(std::size_t{1} << 30);
  }
  ModelInfo start(EngineOptions options) {
    engine_.reset();
    options.backend = "cuda";
    options.threads = 1;
    options.cache_dir = (dir_.path() / "cache").string();
    engine_ = Engine::create(options);
    return engine_->load_model({.model = path_.string()});
  }

  test::TempDir dir_;
  std::filesystem::path path_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(CudaMemory, KvTakesWhatIsLeftOfTheShare) {
  const ModelInfo most = start({});
  EXPECT_LE(emulated::device_memory_taken(), kMemory * 9 / 10);
  EXPECT_GT(most.kv_bytes, kMemory / 2);
  const int tokens = engine_->scheduler_stats().at(0).kv_pages_total;
  const ModelInfo half = start({.gpu_memory_utilization = 0.5});
  EXPECT_LE(emulated::device_memory_taken(), kMemory / 2);
  EXPECT_LT(half.kv_bytes, most.kv_bytes);
  start({.kv_cache_dtype = "int8"});
  EXPECT_GT(engine_->scheduler_stats().at(0).kv_pages_total, tokens * 5 / 4)
      << "keys of 16 dims have scales, too";
  EXPECT_EQ(start({.kv_cache_bytes = 1 << 20}).kv_bytes, 1u << 20);
}

TEST_F(CudaMemory, WhatDoesNotFitIsRefusedWithTheFigures) {
  const auto refusal = [&](const EngineOptions& options) {
    try {
      start(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
      return error.full();
    }
    return std::string();
  };
  EXPECT_THAT(refusal({.gpu_memory_utilization = 0.05, .token_budget = 4096}),
              HasSubstr("gpu_memory_utilization"));
  EXPECT_THAT(refusal({.kv_cache_bytes = kMemory}), HasSubstr("50 MB are free, of which 45 MB may be taken"));
  engine_.reset();
}

// Layers with a window beside others: more tokens in as many bytes, and the same answers.
TEST_F(CudaMemory, LayersWithAWindowKeepFewPages) {
  const test::TempDir dir;
  path_ = test::TinyModel{.layers = 4, .window = 40, .sliding = {1, 0, 1, 0}}.write(dir.path());
  const auto answer = [&](double share) {
    start({.kv_cache_bytes = 1 << 20, .kv_window_share = share, .token_budget = 32});
    std::string text;
    for (const char* prompt : {"a prompt that is longer than what a window of forty tokens sees", "short"})
      text +=
          engine_
              ->generate(
                  {.model = "tiny", .prompt = prompt, .max_tokens = 60, .temperature = 0, .ignore_eos = true})
              .text;
    return text;
  };
  const std::string expected = answer(1);
  const EngineSchedulerStats whole = engine_->scheduler_stats().at(0);
  EXPECT_EQ(whole.kv_window_pages_total, 0);
  EXPECT_EQ(answer(0.25), expected);
  const EngineSchedulerStats apart = engine_->scheduler_stats().at(0);
  EXPECT_GT(apart.kv_window_pages_total, 0);
  EXPECT_GT(apart.kv_window_pages_passed, 4u);
  EXPECT_GT(apart.kv_pages_total, whole.kv_pages_total * 3 / 2);
  EXPECT_EQ(apart.kv_window_pages_held, 0);
}

TEST_F(CudaMemory, HeadsThatAreTooLongAreRefusedBeforeTheWeightsAreLoaded) {
  const test::TempDir dir;
  test::TinyModel model;
  model.head_dim = 288;
  model.hidden = model.heads * model.head_dim;
  const auto path = model.write(dir.path());
  EngineOptions options;
  options.backend = "cuda";
  options.threads = 1;
  options.cache_dir = (dir_.path() / "cache").string();
  engine_ = Engine::create(options);
  try {
    engine_->load_model({.model = path.string(), .force = true});
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
    EXPECT_THAT(error.full(), HasSubstr("heads of 8 to 256 dims in steps of 8, not 288 and 288"));
  }
  EXPECT_LT(emulated::device_memory_most(), std::size_t{200} << 10) << "weights were there";
}

TEST_F(CudaMemory, AStepThatDoesNotFitIsMadeSmaller) {
  start({.kv_cache_bytes = 4 << 20, .prefix_cache = false});
  const auto run = [&](int count, int words) {
    std::vector<std::unique_ptr<Generator>> all;
    for (int i = 0; i < count; ++i) {
      std::string prompt;
      for (int w = 0; w < words; ++w) prompt += std::to_string(w * (i + 3)) + " ";
      all.push_back(engine_->create_generator(
          {.model = "tiny", .prompt = prompt, .max_tokens = 6, .temperature = 0, .ignore_eos = true}));
    }
    for (const auto& one : all) {
      int tokens = 0;
      while (const auto chunk = one->next()) {
        EXPECT_NE(chunk->type, Chunk::Type::kError) << chunk->error_message;
        if (chunk->type == Chunk::Type::kToken) ++tokens;
        if (chunk->type == Chunk::Type::kDone) {
          EXPECT_EQ(chunk->finish, FinishReason::kLength);
        }
      }
    }
  };
  run(1, 1);
  // A step of 512 tokens wants about a megabyte.
  emulated::set_device_memory(emulated::device_memory_taken() + (200 << 10));
  run(6, 40);
  EXPECT_LT(engine_->scheduler_stats().at(0).token_budget, 512);
  emulated::set_device_memory(kMemory);
  run(2, 10);
}

}  // namespace
}  // namespace mlxs
