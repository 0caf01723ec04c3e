// The engine on a GPU with little memory: the KV cache gets what is left, and a step that does not fit is
// made smaller.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/registry.h"
#include "blocks.h"
#include "engine/load_plan.h"
#include "mlxs/engine.h"
#include "mlxs/error.h"
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

// The engine's thread did not make the backend.
TEST_F(CudaMemory, AnyDeviceButTheFirst) {
  emulated::set_machine({.devices = 2});
  start({.device = 1, .kv_cache_bytes = 1 << 20});
  const auto result =
      engine_->generate({.model = "tiny", .prompt = "hello", .max_tokens = 4, .ignore_eos = true});
  EXPECT_EQ(result.tokens.size(), 4u);
  EXPECT_EQ(emulated::device_memory_taken(0), 0u);
  EXPECT_GT(emulated::device_memory_taken(1), std::size_t{1} << 20);
  engine_.reset();
  emulated::set_machine({});
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

TEST_F(CudaMemory, ModelsThatFollowFindRoomAndAsLargeACache) {
  const test::TempDir dir;
  const std::filesystem::path other = test::TinyModel{.layers = 4}.write(dir.path());
  const ModelInfo alone = start({});
  const ModelInfo rest = engine_->load_model({.model = other.string(), .served_name = "other"});
  EXPECT_LT(rest.kv_bytes, alone.kv_bytes / 10) << "the first one took what there was";
  engine_->unload_model(rest.id);
  engine_->unload_model(alone.id);
  const ModelInfo first = engine_->load_model({.model = path_.string(), .next = {other.string()}}),
                  second = engine_->load_model({.model = other.string(), .served_name = "other"});
  EXPECT_LT(first.kv_bytes, alone.kv_bytes * 6 / 10);
  EXPECT_NEAR(static_cast<double>(first.kv_bytes), static_cast<double>(second.kv_bytes),
              0.05 * static_cast<double>(second.kv_bytes));
  EXPECT_LE(emulated::device_memory_taken(), kMemory * 9 / 10);
  for (const ModelInfo& model : {first, second}) {
    const auto answer = engine_->generate(
        {.model = model.id, .prompt = "a prompt", .max_tokens = 4, .temperature = 0, .ignore_eos = true});
    EXPECT_EQ(answer.tokens.size(), 4u) << model.id;
  }
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

// Pages on disk have all layers: those with a window keep every token, and what one engine leaves there the
// next one answers from.
TEST_F(CudaMemory, PagesOnDiskOfLayersWithAWindow) {
  const test::TempDir dir;
  path_ = test::TinyModel{.layers = 4, .window = 40, .sliding = {1, 0, 1, 0}}.write(dir.path());
  const auto answer = [&] {
    start(
        {.kv_cache_bytes = 1 << 20, .token_budget = 32, .prefix_cache_dir = (dir.path() / "pages").string()});
    return engine_->generate({.model = "tiny",
                              .prompt = "a prompt that is longer than what a window of forty tokens sees",
                              .max_tokens = 40,
                              .temperature = 0,
                              .ignore_eos = true});
  };
  const GenerateResult first = answer();
  EXPECT_EQ(engine_->scheduler_stats().at(0).kv_window_pages_total, 0);
  const GenerateResult second = answer();
  EXPECT_GE(second.stats.cached_prompt_tokens, 48);
  EXPECT_EQ(second.text, first.text);
}

// Unless asked for, a step has as many tokens as prompts gain from, and memory has room for.
TEST_F(CudaMemory, StepsAreAsLargeAsTheirShareOfTheMemory) {
  const auto file = ModelFile::open(path_);
  const auto backend = make_backend("cuda", {.threads = 1});
  const auto budget = [&](std::size_t memory, const EngineOptions& options) {
    emulated::set_device_memory(memory);
    const LoadPlan plan = plan_load(*file, *backend, options, 0);
    const EngineOptions taken = with_budget(plan, options);
    EXPECT_EQ(taken.token_budget, plan.token_budget);
    EXPECT_EQ(taken.large_step_ms, options.token_budget == 0 ? EngineOptions{}.large_step_ms : 0);
    return plan.token_budget;
  };
  constexpr std::size_t kGiB = std::size_t{1} << 30;
  EXPECT_EQ(budget(kGiB, {}), 8192);
  EXPECT_EQ(budget(kGiB / 16, {}), 2048) << "of 2,700 bytes a token";
  EXPECT_EQ(budget(kGiB / 16, {.gpu_memory_utilization = 0.05}), 512);
  EXPECT_EQ(budget(kGiB / 16, {.token_budget = 4096}), 4096);
}

// Steps of many sizes, in any order, take little more than the largest needs; no two blocks overlap.
TEST_F(CudaMemory, StepsOfAllSizesUseTheSameMemory) {
  const auto step = [](cuda::StepMemory& memory, std::size_t rows) {
    memory.reset();
    if (memory.wants_trim()) memory.trim();
    std::map<std::byte*, std::size_t> blocks;
    const auto take = [&](std::size_t bytes) {
      auto* const data = static_cast<std::byte*>(memory.allocate(bytes));
      std::memset(data, 1, bytes);
      const auto [at, fresh] = blocks.emplace(data, bytes);
      EXPECT_TRUE(fresh);
      EXPECT_TRUE(at == blocks.begin() || std::prev(at)->first + std::prev(at)->second <= data);
      EXPECT_TRUE(std::next(at) == blocks.end() || data + bytes <= std::next(at)->first);
      return data;
    };
    const auto give = [&](std::byte* data) {
      memory.release(data);
      blocks.erase(data);
    };
    std::byte* const stream = take(rows * 100);
    std::vector<std::byte*> addresses{stream};
    for (int layer = 0; layer < 3; ++layer) {
      std::byte* const qkv = take(rows * 200);
      std::byte* const out = take(rows * 150);
      give(qkv);
      std::byte* const wide = take(rows * 800);
      std::byte* const twin = take(rows * 401);
      give(out);
      give(wide);
      give(twin);
      give(twin);
      addresses.insert(addresses.end(), {qkv, out, wide, twin});
    }
    return addresses;
  };
  for (const bool ascending : {true, false}) {
    cuda::StepMemory memory;
    const std::size_t before = emulated::device_memory_taken();
    for (std::size_t i = 1; i <= 40; ++i) step(memory, 250 * (ascending ? i : 41 - i));
    step(memory, 250);
    EXPECT_LT(emulated::device_memory_taken() - before, std::size_t{10000} * 1451 * 3 / 2);
    const std::vector<std::byte*> once = step(memory, 3333);
    EXPECT_EQ(step(memory, 3333), once) << "graphs count on it";
    memory.reset();
    memory.trim();
    EXPECT_EQ(emulated::device_memory_taken(), before);
  }
}

// What a grid has in y is less than the rows that experts may have.
TEST_F(CudaMemory, ManyRowsAreFinishedInPieces) {
  constexpr int kRows = 65540;
  cudaStream_t stream{};
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, 0), cudaSuccess);
  std::vector<float> sums(2 * kRows), y(kRows);
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = static_cast<float>(i % 1000);
  cuda::finish(stream, sums.data(), 1, kRows, {.y = y.data(), .columns = 1, .gated = true});
  for (std::size_t row = 0; row < kRows; ++row) ASSERT_EQ(y[row], sums[2 * row] * sums[2 * row + 1]) << row;
}

// A layer's pages may be more than what a copy of several layers may have between them.
TEST_F(CudaMemory, PagesOfLargeCachesAreCopied) {
  const auto backend = make_backend("cuda", {.threads = 1});
  for (const int pages : {4, 40}) {  // of 4 KiB each, of K and of V
    const auto kv =
        backend->make_kv({.layers = 3, .kv_heads = 2, .key_dim = 64, .value_dim = 64, .num_pages = pages});
    std::vector<std::byte> written(kv->page_bytes()), read(kv->page_bytes());
    for (std::size_t i = 0; i < written.size(); ++i) written[i] = static_cast<std::byte>(i / 512 + i);
    kv->write_page(1, -1, written);
    backend->copy_page(*kv, 1, pages - 1);
    kv->read_page(pages - 1, -1, read);
    EXPECT_EQ(read, written) << pages;
  }
}

// A step's memory in heaps, weights by a copy stream: the same answers, and both count.
TEST_F(CudaMemory, SwitchesOfTheDevice) {
  const auto answer = [&] {
    return engine_->generate({.model = "tiny", .prompt = "hell he ll", .max_tokens = 8, .temperature = 0})
        .tokens;
  };
  start({.kv_cache_bytes = 4 << 20});
  const std::vector<std::int32_t> plain = answer();
  EXPECT_FALSE(engine_->metal_optimizations_stats().memory_pool.enabled);
  engine_.reset();
  emulated::set_device_memory(std::size_t{1} << 30);
  start({.kv_cache_bytes = 4 << 20,
         .metal_optimizations = {.enabled = true,
                                 .graceful_fallback = false,
                                 .memory_pool = {.enabled = true, .heap_size_mb = 64, .num_heaps = 2},
                                 .blit_queue = {.enabled = true, .max_pending_ops = 2}}});
  EXPECT_EQ(answer(), plain);
  const MetalOptimizationsStats stats = engine_->metal_optimizations_stats();
  EXPECT_EQ(stats.memory_pool.pool_size, 2);
  EXPECT_EQ(stats.memory_pool.available_count, 1) << "blocks stay where they are cut";
  EXPECT_EQ(stats.memory_pool.total_acquired, 1u);
  EXPECT_EQ(stats.memory_pool.fallback_events, 0u);
  EXPECT_TRUE(stats.blit_queue.enabled);
  EXPECT_GE(stats.blit_queue.total_uploads, 2u * 8) << "weights of two layers";
  EXPECT_GE(stats.blit_queue.uploaded_bytes, engine_->model_info("tiny").weight_bytes / 2);
}

TEST_F(CudaMemory, HeadsThatAreTooLongAreRefusedBeforeTheWeightsAreLoaded) {
  const test::TempDir dir;
  test::TinyModel model;
  model.head_dim = 520;
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
    EXPECT_THAT(error.full(), HasSubstr("not 520 and 520"));
  }
  EXPECT_LT(emulated::device_memory_most(), std::size_t{200} << 10) << "weights were there";
}

// Graphs lie outside of what a step was planned to take: for a new one old ones go; a step that was begun
// ahead and finds no memory all the same is begun again behind the one before, which gets its answers; and
// where there is never any, requests are preempted and go on.
TEST_F(CudaMemory, AGraphThatDoesNotFit) {
  start({.kv_cache_bytes = 4 << 20, .prefix_cache = false});
  const auto answer = [&](int tokens) {
    return engine_->generate({.model = "tiny",
                              .prompt = "hell he ll",
                              .max_tokens = tokens,
                              .temperature = 0,
                              .ignore_eos = true});
  };
  const std::vector<std::int32_t> plain = answer(8).tokens;
  for (const int refused : {1, 2, 1000}) {
    start({.kv_cache_bytes = 4 << 20, .prefix_cache = false});
    (void)answer(1);
    emulated::refuse_graphs(refused);
    EXPECT_EQ(answer(8).tokens, plain) << refused;
    emulated::refuse_graphs(0);
  }
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
