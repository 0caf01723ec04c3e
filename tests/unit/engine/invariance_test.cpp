// What a request is answered does not depend on what else the engine does: the same tokens, whatever is
// shared, cut into chunks, preempted, swapped out or published late. Compared up to the first near tie, as
// sums in another order may decide those otherwise.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "mlxs/engine.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

constexpr int kRequests = 16;
constexpr float kNoise = 2e-2f;  // of a logit: bf16 KV, sums in other orders

struct Step {
  std::int32_t token;
  float margin;  // to the second best
};

class InvarianceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("mlxs-invariance-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    path_ = test::TinyModel{}.write(folder_).string();
    const auto engine = start({.prefix_cache = false});
    for (int i = 0; i < kRequests; ++i) alone_.push_back(collect(*engine->create_generator(request(i))));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Engine> start(EngineOptions options) const { return start(std::move(options), path_); }
  std::unique_ptr<Engine> start(EngineOptions options, const std::string& path) const {
    options.cache_dir = (folder_ / "cache").string();
    options.threads = 2;
    auto engine = Engine::create(options);
    engine->load_model({.model = path, .served_name = "tiny"});
    return engine;
  }
  // Groups of four share most of their prompt.
  static GenerateParams request(int i) {
    const std::string text =
        "of group " + std::to_string(i / 4) + ", which is shared: " +
        std::string(static_cast<std::size_t>(40 + 10 * (i / 4)), static_cast<char>('a' + i / 4)) +
        " and not: " + std::to_string(i);
    return {.model = "tiny",
            .prompt = text,
            .max_tokens = 90 + 5 * (i % 7),
            .temperature = 0,
            .top_logprobs = 2,
            .ignore_eos = true,
            .priority = static_cast<RequestPriority>(i % 4),
            .user = i % 3 == 0 ? "alice" : "bob"};
  }
  static std::vector<Step> collect(Generator& generator) {
    std::vector<Step> steps;
    while (const auto chunk = generator.next()) {
      if (chunk->token_id < 0) continue;
      steps.push_back(
          {chunk->token_id, chunk->top_logprobs.at(0).logprob - chunk->top_logprobs.at(1).logprob});
    }
    return steps;
  }

  // All at once; returns what the scheduler did meanwhile.
  EngineSchedulerStats run(const EngineOptions& options) const {
    const auto engine = start(options);
    std::vector<std::vector<Step>> together(kRequests);
    {
      std::vector<std::jthread> clients;
      for (int i = 0; i < kRequests; ++i) {
        clients.emplace_back([&, i] {
          together[static_cast<std::size_t>(i)] = collect(*engine->create_generator(request(i)));
        });
      }
    }
    int compared = 0;
    for (std::size_t i = 0; i < together.size(); ++i) {
      EXPECT_EQ(together[i].size(), alone_[i].size()) << "request " << i;
      for (std::size_t t = 0; t < std::min(alone_[i].size(), together[i].size()); ++t) {
        if (alone_[i][t].margin < kNoise) break;
        EXPECT_EQ(together[i][t].token, alone_[i][t].token) << "request " << i << ", token " << t;
        if (together[i][t].token != alone_[i][t].token) break;
        ++compared;
      }
    }
    EXPECT_GT(compared, 100) << "too few positions had a margin: the test proves nothing";
    return engine->scheduler_stats().at(0);
  }

  // Two of four layers see a window; alone_: what each request is answered by layers that keep every token.
  void use_mixed_model(const std::string& kv_type = "auto") {
    const auto folder = folder_ / "mixed";
    std::filesystem::create_directories(folder);
    path_ = test::TinyModel{.layers = 4, .window = 40, .sliding = {1, 0, 1, 0}}.write(folder).string();
    alone_.clear();
    const auto engine = start({.kv_cache_dtype = kv_type, .kv_window_share = 1, .prefix_cache = false});
    for (int i = 0; i < kRequests; ++i) alone_.push_back(collect(*engine->create_generator(request(i))));
  }

  EngineSchedulerStats six_choices() const {
    const auto engine = start({});
    std::vector<GenerateParams> choices(6, request(1));
    const std::vector<std::int32_t> prompt = engine->encode_prompt("tiny", choices[0].prompt);
    choices[0].prompt = TokenPrompt{{prompt.begin(), prompt.begin() + 4 * 16 + 11}};
    const std::vector<Step> alone = collect(*engine->create_generator(choices[0]));
    EXPECT_EQ(engine->scheduler_stats().at(0).kv_pages_branched, 0u);
    for (std::size_t i = 0; i < choices.size(); ++i) {
      choices[i].prompt = choices[0].prompt;
      choices[i].cache_salt = "apart from what was";
      choices[i].temperature = i < 3 ? 0.0f : 1.0f;
      choices[i].seed = i;
    }
    std::vector<std::vector<Step>> answers;
    for (const auto& generator : engine->create_generators(choices)) answers.push_back(collect(*generator));
    EXPECT_EQ(engine->scheduler_stats().at(0).kv_pages_branched, 5u);
    int compared = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t t = 0; t < alone.size() && alone[t].margin >= kNoise; ++t, ++compared)
        EXPECT_EQ(answers[i][t].token, alone[t].token) << "choice " << i << ", token " << t;
    }
    EXPECT_GT(compared, 10);
    EXPECT_NE(answers[3].back().token * 1000 + answers[3].front().token,
              answers[4].back().token * 1000 + answers[4].front().token)
        << "drawn apart";
    return engine->scheduler_stats().at(0);
  }

  static constexpr std::uint64_t kPageBytes = 2 * 2 * 16 * (16 + 16) * 2;  // layers, heads, tokens, K+V, bf16

  std::filesystem::path folder_;
  std::string path_;
  std::vector<std::vector<Step>> alone_;
};

TEST_F(InvarianceTest, Batching) { EXPECT_EQ(run({.prefix_cache = false}).preemptions, 0u); }

TEST_F(InvarianceTest, PrefixHits) { EXPECT_GT(run({}).cached_prompt_tokens, 16u * 16u); }

TEST_F(InvarianceTest, SmallChunks) { EXPECT_GT(run({.token_budget = 24}).steps, 100u); }

TEST_F(InvarianceTest, Preemption) {
  for (const bool prefix_cache : {false, true}) {
    EXPECT_GT(run({.kv_cache_bytes = 40 * kPageBytes, .prefix_cache = prefix_cache}).preemptions, 0u);
  }
}

TEST_F(InvarianceTest, Swapping) {
  const EngineSchedulerStats stats = run({.kv_cache_bytes = 40 * kPageBytes,
                                          .kv_swap_bytes = 200 * kPageBytes,
                                          .token_budget = 48,
                                          .prefix_cache = false});
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_EQ(stats.swap_slots, 200);
  EXPECT_EQ(stats.swap_slots_used, 0);
}

// A model whose attention sees 40 tokens: what a request leaves behind is free for others, and answers stay
// those of a pool that never lacks pages and of one without a cache.
TEST_F(InvarianceTest, AWindowsOldPages) {
  const auto folder = folder_ / "window";
  std::filesystem::create_directories(folder);
  path_ = test::TinyModel{.window = 40}.write(folder).string();
  const std::vector<std::vector<Step>> global = alone_;
  alone_.clear();
  const auto engine = start({.prefix_cache = false});
  for (int i = 0; i < kRequests; ++i) alone_.push_back(collect(*engine->create_generator(request(i))));
  EXPECT_EQ(engine->scheduler_stats().at(0).kv_pages_held, 0);
  EXPECT_GT(engine->scheduler_stats().at(0).kv_pages_passed, 16u * 4u);
  const auto differs = [](const auto& a, const auto& b) {
    return a.at(0).at(60).token != b.at(0).at(60).token;
  };
  EXPECT_TRUE(differs(global, alone_) || global.at(1).back().token != alone_.at(1).back().token)
      << "the window changes nothing: the test proves nothing";
  EXPECT_GT(run({}).cached_prompt_tokens, 16u * 16u);
  EXPECT_GT(run({.kv_cache_bytes = 30 * kPageBytes}).kv_pages_passed, 16u * 4u);
  EXPECT_GT(run({.kv_cache_bytes = 15 * kPageBytes}).kv_pages_passed, 16u * 4u);
}

// A model of which two layers see 40 tokens and the others everything: the two keep few pages of their own,
// and answers are those of layers that keep every token.
TEST_F(InvarianceTest, PagesOfTheirOwnForLayersWithAWindow) {
  use_mixed_model();
  constexpr std::uint64_t kBytes = 60 * 2 * kPageBytes;
  const EngineSchedulerStats whole =
      run({.kv_cache_bytes = kBytes, .kv_window_share = 1, .token_budget = 32});
  EXPECT_EQ(whole.kv_pages_total, 60);
  EXPECT_EQ(whole.kv_window_pages_total, 0);
  const EngineSchedulerStats apart = run({.kv_cache_bytes = kBytes, .token_budget = 32});
  EXPECT_EQ(apart.kv_window_pages_total, 30);
  EXPECT_EQ(apart.kv_pages_total, 60 + 30);
  EXPECT_EQ(apart.kv_window_pages_held, 0);
  EXPECT_GT(apart.kv_window_pages_passed, 16u * 4u);
  EXPECT_GT(apart.kv_window_pages_evicted, 16u);
  EXPECT_GT(run({}).cached_prompt_tokens, 16u * 16u);
}

TEST_F(InvarianceTest, PagesOfTheirOwnOfBytes) {
  use_mixed_model("int8");
  EXPECT_EQ(run({.kv_cache_bytes = 60 * kPageBytes, .kv_cache_dtype = "int8", .token_budget = 48})
                .kv_window_pages_held,
            0);
}

TEST_F(InvarianceTest, PagesOfTheirOwnArePreemptedAndSwapped) {
  use_mixed_model();
  const EngineOptions few{.kv_cache_bytes = 40 * 2 * kPageBytes, .kv_window_share = 0.9, .token_budget = 32};
  for (const bool prefix_cache : {false, true}) {
    EngineOptions options = few;
    options.prefix_cache = prefix_cache;
    EXPECT_GT(run(options).preemptions, 0u);
  }
  EngineOptions options = few;
  options.kv_swap_bytes = 200 * 2 * kPageBytes;
  options.prefix_cache = false;
  const EngineSchedulerStats stats = run(options);
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_EQ(stats.swap_slots_used, 0);
}

// Six equal prompts at once: the page that is not full is computed once and copied, and each goes on apart.
TEST_F(InvarianceTest, CopiedLastPages) { six_choices(); }

TEST_F(InvarianceTest, CopiedLastPagesOfTheirOwn) {
  use_mixed_model();
  EXPECT_GT(six_choices().kv_window_pages_passed, 6u);
}

TEST_F(InvarianceTest, PublishingLate) {
  for (const int depth : {1, 2, 3}) {
    const EngineSchedulerStats stats = run({.ring_depth = depth});
    EXPECT_EQ(stats.ring_depth, depth);
    EXPECT_EQ(stats.steps_ahead > 0, depth == 3) << stats.steps_ahead;
  }
}

// Behind a step that runs, whatever else goes on: preempted, swapped, given up by windows.
TEST_F(InvarianceTest, StepsAhead) {
  const auto ahead = [&](EngineOptions options) {
    options.ring_depth = 3;
    const EngineSchedulerStats stats = run(options);
    EXPECT_GT(stats.steps_ahead, 20u);
    EXPECT_EQ(stats.running + stats.waiting + stats.paused + stats.kv_window_pages_held, 0);
    return stats.preemptions;
  };
  EXPECT_GT(ahead({.kv_cache_bytes = 40 * kPageBytes}), 0u);
  EXPECT_GT(ahead({.kv_cache_bytes = 40 * kPageBytes,
                   .kv_swap_bytes = 200 * kPageBytes,
                   .token_budget = 48,
                   .prefix_cache = false}),
            0u);
  ahead({.max_running = 5});
  use_mixed_model();
  ahead({.kv_cache_bytes = 60 * 2 * kPageBytes, .token_budget = 32});
  ahead({.kv_cache_bytes = 40 * 2 * kPageBytes, .kv_window_share = 0.9, .token_budget = 32});
}

// Text, finish and count are those of a serial engine, though the engine hears of the stop a step or two
// late.
TEST_F(InvarianceTest, NothingIsShownBehindAStopString) {
  const auto serial = start({.ring_depth = 1});
  for (const int depth : {2, 3}) {
    const auto engine = start({.ring_depth = depth});
    int stopped = 0;
    for (int i = 0; i < kRequests; ++i) {
      GenerateParams params = request(i);
      const std::string whole = serial->generate(params).text;
      const auto printable = [](char c) { return c > 32 && c < 127; };
      std::size_t at = 4;
      while (at + 2 < whole.size() && !(printable(whole[at]) && printable(whole[at + 1]))) ++at;
      if (at + 2 >= whole.size()) continue;
      params.stop = {whole.substr(at, 2)};
      const GenerateResult expected = serial->generate(params), late = engine->generate(params);
      EXPECT_EQ(late.text, expected.text);
      EXPECT_EQ(late.tokens, expected.tokens);
      EXPECT_EQ(late.finish, expected.finish);
      EXPECT_EQ(late.stats.generated_tokens, expected.stats.generated_tokens);
      ++stopped;
    }
    EXPECT_GT(stopped, 5);
    const EngineSchedulerStats stats = engine->scheduler_stats().at(0);
    EXPECT_EQ(stats.finished, static_cast<std::uint64_t>(stopped));
    EXPECT_EQ(stats.running + stats.waiting + stats.paused, 0);
  }
}

TEST_F(InvarianceTest, StructuredAnswersObeyAtEveryDepth) {
  for (const int depth : {1, 2, 3}) {
    const auto engine = start({.ring_depth = depth});
    std::vector<std::unique_ptr<Generator>> generators;
    for (int i = 0; i < kRequests; ++i) {
      GenerateParams params = request(i);
      params.temperature = 1.5f;
      params.seed = static_cast<std::uint64_t>(i);
      params.ignore_eos = false;
      params.max_tokens = 60;
      params.structured = {StructuredOutput::Kind::kRegex, "[a-f]{3}-[0-9]{1,4};"};
      generators.push_back(engine->create_generator(params));
    }
    for (const auto& generator : generators) {
      std::string text;
      while (const auto chunk = generator->next()) text += chunk->text;
      EXPECT_EQ(text.back(), ';') << text;
      EXPECT_EQ(text[3], '-') << text;
    }
  }
}

}  // namespace
}  // namespace mlxs
