// The engine on a tiny random model: every promise of include/mlxs/engine.h that does not need a real one.
#include "mlxs/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <thread>

#include "support/tiny_model.h"

namespace mlxs {
namespace {

using ::testing::HasSubstr;

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("mlxs-engine-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    path_ = test::TinyModel{}.write(folder_);
    start({});
  }
  void TearDown() override {
    engine_.reset();
    std::filesystem::remove_all(folder_);
  }

  void start(EngineOptions options) {
    options.cache_dir = (folder_ / "cache").string();
    options.threads = 2;
    engine_ = Engine::create(options);
    engine_->load_model({.model = path_.string()});
  }

  GenerateParams greedy(std::string prompt, int max_tokens = 24) {
    return {.model = "tiny",
            .prompt = std::move(prompt),
            .max_tokens = max_tokens,
            .temperature = 0,
            .ignore_eos = true};
  }

  // Nothing runs, waits or holds a page. Cancels are applied between steps, so look until they were.
  void expect_all_free() {
    for (int tries = 0; tries < 2000; ++tries) {
      const EngineSchedulerStats stats = engine_->scheduler_stats().at(0);
      if (stats.running == 0 && stats.waiting == 0 && stats.kv_pages_held == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const EngineSchedulerStats stats = engine_->scheduler_stats().at(0);
    FAIL() << stats.running << " running, " << stats.waiting << " waiting, " << stats.kv_pages_held
           << " pages held";
  }

  template <class Call>
  Error error_of(Call&& call) {
    try {
      call();
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "no error was thrown";
    return Error(ErrorCode::kInternal, "none");
  }

  std::filesystem::path folder_, path_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, ACacheThatHoldsLessThanAContextLimitsIt) {
  start({.kv_cache_bytes = 5 * 4096});
  const ModelInfo info = engine_->model_info("tiny");
  EXPECT_EQ(info.context_length, 512);
  EXPECT_EQ(info.context_limit, 5 * 16);
  try {
    engine_->generate({.model = "tiny", .prompt = TokenPrompt{std::vector<std::int32_t>(100, 20)}});
    FAIL() << "it fits";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kContextOverflow);
    EXPECT_THAT(error.full(), HasSubstr("is 80 (of 512: its KV cache holds no more)"));
    EXPECT_THAT(error.full(), HasSubstr("kv_cache_bytes"));
  }
  start({});
  EXPECT_EQ(engine_->model_info("tiny").context_limit, 512);
}

TEST_F(EngineTest, TwoFilesOfOneNameNeedAnotherName) {
  std::filesystem::create_directories(folder_ / "other");
  const std::filesystem::path other = test::TinyModel{}.write(folder_ / "other");
  try {
    engine_->load_model({.model = other.string()});
    FAIL() << "both are 'tiny'";
  } catch (const Error& error) {
    EXPECT_THAT(error.full(), HasSubstr("--served-model-name"));
  }
  EXPECT_EQ(engine_->load_model({.model = other.string(), .served_name = "new"}).id, "new");
}

TEST_F(EngineTest, StepsWithoutMemoryAreMadeSmaller) {
  engine_->load_model({.model = "mock:tokens=20,memory=3", .served_name = "small"});
  std::vector<std::unique_ptr<Generator>> all;
  for (int i = 0; i < 8; ++i) {
    GenerateParams params = greedy("hello", 20);
    params.model = "small";
    all.push_back(engine_->create_generator(params));
  }
  for (const auto& generator : all) {
    int tokens = 0;
    while (const auto chunk = generator->next()) {
      EXPECT_NE(chunk->type, Chunk::Type::kError) << chunk->error_message;
      if (chunk->type == Chunk::Type::kToken) ++tokens;
    }
    EXPECT_EQ(tokens, 20);
  }
  for (const EngineSchedulerStats& stats : engine_->scheduler_stats()) {
    if (stats.model == "small") {
      EXPECT_GT(stats.preemptions, 0u);
      EXPECT_EQ(stats.kv_pages_held, 0);
    }
  }
}

TEST_F(EngineTest, AStepThatFailsEndsItsRequestsAndNoOthers) {
  engine_->load_model({.model = "mock:tokens=20,fail=8", .served_name = "failing"});
  int failed = 0, whole = 0;
  for (int i = 0; i < 8; ++i) {
    GenerateParams params = greedy("hello", 5);
    params.model = "failing";
    try {
      whole += engine_->generate(params).tokens.size() == 5 ? 1 : 0;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("the step failed"), std::string::npos) << error.what();
      ++failed;
    }
  }
  EXPECT_GT(failed, 0);
  EXPECT_GT(whole, 0);
  EXPECT_EQ(failed + whole, 8);
}

TEST_F(EngineTest, StreamsTokensThenExactlyOneDone) {
  const auto generator = engine_->create_generator(greedy("hello", 7));
  int tokens = 0, dones = 0;
  while (const auto chunk = generator->next()) {
    EXPECT_EQ(dones, 0) << "a chunk after done";
    if (chunk->type == Chunk::Type::kToken && chunk->token_id >= 0) ++tokens;
    if (chunk->type == Chunk::Type::kDone) {
      ++dones;
      EXPECT_EQ(chunk->finish, FinishReason::kLength);
      EXPECT_EQ(chunk->stats.prompt_tokens, 2);  // "hell" "o"
      EXPECT_EQ(chunk->stats.generated_tokens, 7);
      EXPECT_LE(chunk->stats.queue_seconds, chunk->stats.ttft_seconds);
      EXPECT_LE(chunk->stats.ttft_seconds, chunk->stats.total_seconds);
    }
  }
  EXPECT_EQ(tokens, 7);
  EXPECT_EQ(dones, 1);
  expect_all_free();
}

// Where the best token leads the second by more than numeric noise, a request's tokens do not depend on its
// company.
TEST_F(EngineTest, ConcurrentGreedyResultsEqualSoloResultsWithinMargins) {
  constexpr float kNoise = 0.02f;  // logits differ by far less between row counts; see docs/performance.md
  std::vector<std::string> prompts;
  std::mt19937 random(7);
  for (int i = 0; i < 16; ++i) {
    std::string prompt;
    for (int n = 1 + static_cast<int>(random() % 60); n > 0; --n)
      prompt += static_cast<char>('a' + random() % 26);
    prompts.push_back(prompt);
  }
  const auto params = [&](int i) {
    GenerateParams p = greedy(prompts[static_cast<std::size_t>(i)], 8 + 5 * i);
    p.top_logprobs = 2;
    return p;
  };
  struct Step {
    std::int32_t token;
    float margin;
  };
  const auto collect = [](Generator& generator) {
    std::vector<Step> steps;
    while (const auto chunk = generator.next()) {
      if (chunk->token_id >= 0) {
        steps.push_back(
            {chunk->token_id, chunk->top_logprobs.at(0).logprob - chunk->top_logprobs.at(1).logprob});
      }
    }
    return steps;
  };
  std::vector<std::vector<Step>> solo, together(16);
  for (int i = 0; i < 16; ++i) solo.push_back(collect(*engine_->create_generator(params(i))));

  std::vector<std::thread> clients;  // join and leave mid-flight: lengths differ
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back(
        [&, i] { together[static_cast<std::size_t>(i)] = collect(*engine_->create_generator(params(i))); });
  }
  for (std::thread& client : clients) client.join();

  int compared = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    ASSERT_EQ(together[i].size(), solo[i].size());
    for (std::size_t t = 0; t < solo[i].size(); ++t) {
      if (solo[i][t].margin < kNoise) break;  // a near tie: from here on the texts may differ
      ASSERT_EQ(together[i][t].token, solo[i][t].token) << "request " << i << ", token " << t;
      ++compared;
    }
  }
  EXPECT_GT(compared, 300) << "too few positions had a margin: the test proves nothing";
  expect_all_free();
}

TEST_F(EngineTest, RandomDisconnectsLeaveNoPageInUse) {
  std::mt19937 random(11);
  for (int i = 0; i < 500; ++i) {
    auto generator = engine_->create_generator(greedy(std::string(1 + random() % 100, 'x'), 200));
    for (auto reads = random() % 4; reads > 0; --reads) generator->next();
  }
  expect_all_free();
}

TEST_F(EngineTest, ASlowReaderIsPausedAndLosesNothing) {
  const auto slow = engine_->create_generator(greedy("slow", 400));
  const GenerateResult other =
      engine_->generate(greedy("quick", 200));  // finishes although nobody reads the slow one
  EXPECT_EQ(other.tokens.size(), 200u);
  while (engine_->scheduler_stats().at(0).paused == 0) std::this_thread::yield();
  std::vector<std::int32_t> tokens;
  while (const auto chunk = slow->next()) {
    if (chunk->token_id >= 0) tokens.push_back(chunk->token_id);
  }
  EXPECT_EQ(tokens.size(), 400u);
  EXPECT_EQ(tokens, engine_->generate(greedy("slow", 400)).tokens);
}

TEST_F(EngineTest, ASeedReproducesAndSeedsDiffer) {
  GenerateParams params = greedy("seed", 30);
  params.temperature = 1.0f;
  params.seed = 42;
  const auto first = engine_->generate(params).tokens;
  EXPECT_EQ(first, engine_->generate(params).tokens);
  params.seed = 43;
  EXPECT_NE(first, engine_->generate(params).tokens);
}

TEST_F(EngineTest, AStopStringEndsTheTextBeforeIt) {
  const GenerateResult whole = engine_->generate(greedy("stop here", 60));
  // Any ASCII run inside the text serves as the stop; it may cross token boundaries.
  std::size_t at = std::string::npos;
  for (std::size_t i = 8; i + 3 < whole.text.size() && at == std::string::npos; ++i) {
    if (std::all_of(&whole.text[i], &whole.text[i] + 3, [](char c) { return c > 32 && c < 127; })) at = i;
  }
  ASSERT_NE(at, std::string::npos) << "the tiny model wrote no three ASCII characters in a row";
  const std::string stop = whole.text.substr(at, 3);
  GenerateParams params = greedy("stop here", 60);
  params.stop = {stop};
  const GenerateResult result = engine_->generate(params);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(stop)));
}

TEST_F(EngineTest, AStopTokenEndsTheAnswerUnshown) {
  const GenerateResult whole = engine_->generate(greedy("tokens", 20));
  GenerateParams params = greedy("tokens", 20);
  params.stop_token_ids = {whole.tokens[5]};
  const GenerateResult result = engine_->generate(params);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_LE(result.tokens.size(), 5u);
}

TEST_F(EngineTest, ABiasForcesAToken) {
  GenerateParams params = greedy("bias", 5);
  params.logit_bias = {{100, 100.0f}};
  EXPECT_EQ(engine_->generate(params).tokens, std::vector<std::int32_t>(5, 100));
}

TEST_F(EngineTest, APrefixHitChangesNothingButTheWork) {
  const std::string prompt(200, 'p');
  const GenerateResult cold = engine_->generate(greedy(prompt));
  const GenerateResult warm = engine_->generate(greedy(prompt));
  EXPECT_EQ(cold.stats.cached_prompt_tokens, 0);
  EXPECT_GE(warm.stats.cached_prompt_tokens, 176);
  EXPECT_EQ(cold.tokens, warm.tokens);
}

TEST_F(EngineTest, AStructuredAnswerObeysItsGrammarAndEndsByItself) {
  GenerateParams params = greedy("anything", 60);
  params.temperature = 2;
  params.structured = {StructuredOutput::Kind::kRegex, "[a-f]{3}-[0-9]+;"};
  for (const std::uint64_t seed : {1, 2, 3}) {
    params.seed = seed;
    const GenerateResult result = engine_->generate(params);
    EXPECT_EQ(result.finish, FinishReason::kStop);
    EXPECT_THAT(result.text, ::testing::MatchesRegex("[a-f][a-f][a-f]-[0-9]+;"));
  }
  params.structured = {StructuredOutput::Kind::kJsonSchema, R"({"contains": {}})"};
  const Error error = error_of([&] { engine_->generate(params); });
  EXPECT_EQ(error.field(), "structured");
  EXPECT_THAT(error.what(), HasSubstr("contains"));
  expect_all_free();
}

TEST_F(EngineTest, StructuredAndFreeAnswersShareSteps) {
  std::vector<std::unique_ptr<Generator>> generators;
  for (int i = 0; i < 8; ++i) {
    GenerateParams params = greedy("prompt " + std::to_string(i), 20);
    if (i % 2 == 0) params.structured = {StructuredOutput::Kind::kChoice, R"(["yes", "no", "maybe"])"};
    generators.push_back(engine_->create_generator(params));
  }
  for (std::size_t i = 0; i < generators.size(); ++i) {
    std::string text;
    while (const auto chunk = generators[i]->next()) text += chunk->text;
    if (i % 2 != 0) continue;
    EXPECT_THAT(text, ::testing::AnyOf("yes", "no", "maybe"));
  }
}

// A token that breaks a request may reach KV of the tokens before it, of the same chunk: none of it may be
// cached.
TEST_F(EngineTest, ABrokenRequestLeavesNothingInThePrefixCache) {
  path_ = test::TinyModel{.kv_heads = 4, .broken_token = 3 + '~'}.write(folder_, "tiny");
  start({});
  const std::string prefix = "a prefix of two pages, and a bit.";
  const std::vector<std::int32_t> expected = engine_->generate(greedy(prefix)).tokens;
  start({.token_budget = 32});  // an empty cache, and a prompt that takes two steps
  const Error error = error_of(
      [&] { engine_->generate(greedy(prefix.substr(0, 20) + "~ and more text than one step takes")); });
  EXPECT_THAT(error.what(), HasSubstr("NaN"));
  const GenerateResult after = engine_->generate(greedy(prefix));
  EXPECT_EQ(after.tokens, expected);
  EXPECT_EQ(after.stats.cached_prompt_tokens, 0);
  expect_all_free();
}

TEST_F(EngineTest, RefusesWhatDoesNotFitWithBothNumbers) {
  const Error error = error_of([&] { engine_->create_generator(greedy(std::string(600, 'z'))); });
  EXPECT_EQ(error.code(), ErrorCode::kContextOverflow);
  EXPECT_THAT(error.what(), HasSubstr("600"));
  EXPECT_THAT(error.what(), HasSubstr("512"));
  EXPECT_EQ(error_of([&] { engine_->create_generator(greedy("a", 512)); }).field(), "max_tokens");
}

TEST_F(EngineTest, NamesTheFieldOfABadValue) {
  const auto field = [&](auto change) {
    GenerateParams params = greedy("x");
    change(params);
    const Error error = error_of([&] { engine_->create_generator(params); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.field();
  };
  EXPECT_EQ(field([](auto& p) { p.temperature = 2.5f; }), "temperature");
  EXPECT_EQ(field([](auto& p) { p.temperature = NAN; }), "temperature");
  EXPECT_EQ(field([](auto& p) { p.top_p = 0.0f; }), "top_p");
  EXPECT_EQ(field([](auto& p) { p.top_k = -1; }), "top_k");
  EXPECT_EQ(field([](auto& p) { p.min_p = 1.0f; }), "min_p");
  EXPECT_EQ(field([](auto& p) { p.stop = {""}; }), "stop");
  EXPECT_EQ(field([](auto& p) { p.max_tokens = 0; }), "max_tokens");
  EXPECT_EQ(field([](auto& p) { p.logit_bias = {{999999, 1.0f}}; }), "logit_bias");
  EXPECT_EQ(field([](auto& p) { p.prompt = ""; }), "prompt");
  EXPECT_EQ(field([](auto& p) { p.prompt = TokenPrompt{{-1}}; }), "prompt");
}

TEST_F(EngineTest, AnUnknownModelIsNamedWithTheLoadedOnes) {
  GenerateParams params = greedy("x");
  params.model = "tinny";
  const Error error = error_of([&] { engine_->create_generator(params); });
  EXPECT_EQ(error.code(), ErrorCode::kModelNotFound);
  EXPECT_THAT(error.hint(), HasSubstr("tiny"));
}

TEST_F(EngineTest, LoadingTwiceIsOneModel) {
  const ModelInfo again = engine_->load_model({.model = path_.string()});
  EXPECT_EQ(again.id, "tiny");
  EXPECT_EQ(engine_->list_models().size(), 1u);
}

TEST_F(EngineTest, TwoModelsServeSideBySide) {
  const auto other = test::TinyModel{.layers = 3, .seed = 2}.write(folder_, "other");
  engine_->load_model({.model = other.string()});
  GenerateParams params = greedy("both");
  const auto first = engine_->create_generator(params);
  params.model = "other";
  const auto second = engine_->create_generator(params);
  int chunks = 0;
  while (first->next()) ++chunks;
  while (second->next()) ++chunks;
  EXPECT_GE(chunks, 50);
}

TEST_F(EngineTest, UnloadingEndsRunningRequestsWithAnError) {
  const auto generator = engine_->create_generator(greedy("unload me", 400));
  generator->next();
  engine_->unload_model("tiny");
  std::optional<Chunk> last;
  while (auto chunk = generator->next()) last = std::move(chunk);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->type, Chunk::Type::kError);
  EXPECT_EQ(last->error_code, ErrorCode::kUnavailable);
  EXPECT_TRUE(engine_->list_models().empty());
  EXPECT_FALSE(engine_->health().ready);
}

TEST_F(EngineTest, DisposeEndsRunningRequestsAsCancelledAndRefusesNewOnes) {
  const auto generator = engine_->create_generator(greedy("dispose", 400));
  generator->next();
  engine_->dispose();
  engine_->dispose();
  std::optional<Chunk> last;
  while (auto chunk = generator->next()) last = std::move(chunk);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->finish, FinishReason::kCancelled);
  EXPECT_THROW(engine_->create_generator(greedy("late")), Error);
  EXPECT_FALSE(engine_->health().live);
}

TEST_F(EngineTest, WorksThroughAQueueMuchLongerThanTheBatch) {
  start({.max_running = 3, .token_budget = 16});
  std::vector<std::unique_ptr<Generator>> generators;
  for (int i = 0; i < 40; ++i)
    generators.push_back(engine_->create_generator(greedy(std::string(1 + i, 'q'), 5 + i % 7)));
  for (std::size_t i = 0; i < generators.size(); ++i) {
    int tokens = 0;
    while (const auto chunk = generators[i]->next()) tokens += chunk->token_id >= 0 ? 1 : 0;
    EXPECT_EQ(tokens, 5 + static_cast<int>(i) % 7);
  }
}

TEST_F(EngineTest, AFullQueueRefusesWithOverloaded) {
  start({.max_running = 1, .max_queue_depth = 1});
  std::vector<std::unique_ptr<Generator>> generators;
  for (int i = 0; i < 8; ++i) generators.push_back(engine_->create_generator(greedy("full", 300)));
  int overloaded = 0;
  for (std::size_t i = generators.size(); i-- > 1;) {
    generators[i]->cancel();
    while (const auto chunk = generators[i]->next()) {
      overloaded += chunk->type == Chunk::Type::kError && chunk->error_code == ErrorCode::kOverloaded ? 1 : 0;
    }
  }
  EXPECT_GE(overloaded, 5);
}

TEST_F(EngineTest, SmallKvCachePreemptsAndStillFinishesEverything) {
  // 2 layers · 2 heads · 32 dims · 16 tokens · 2 bytes = 4 KiB a page: 60 pages for 6 requests of 27 pages
  // each.
  start({.kv_cache_bytes = 60 * 4096, .prefix_cache = false});
  std::vector<std::thread>
      clients;  // all read at once: a full channel would pause its request and need no pages
  std::vector<std::size_t> tokens(6);
  for (std::size_t i = 0; i < 6; ++i) {
    clients.emplace_back(
        [&, i] { tokens[i] = engine_->generate(greedy("preempt me please", 400)).tokens.size(); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(tokens, std::vector<std::size_t>(6, 400));
  EXPECT_GT(engine_->scheduler_stats().at(0).preemptions, 0u);
  expect_all_free();
}

TEST_F(EngineTest, EvaluateAgreesWithGreedyGeneration) {
  const GenerateResult result = engine_->generate(greedy("evaluate", 6));
  std::vector<std::int32_t> tokens = engine_->tokenize("tiny", "evaluate");
  const std::size_t prompt = tokens.size();
  tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
  const std::vector<float> logits = engine_->evaluate("tiny", tokens);
  const auto vocabulary = static_cast<std::ptrdiff_t>(engine_->model_info("tiny").vocabulary);
  ASSERT_EQ(logits.size(), tokens.size() * static_cast<std::size_t>(vocabulary));
  for (std::size_t i = 0; i < result.tokens.size(); ++i) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(prompt - 1 + i) * vocabulary;
    const auto best = std::max_element(row, row + vocabulary);
    EXPECT_LE(*best - row[result.tokens[i]], 0.02f) << "token " << i;
  }
}

TEST_F(EngineTest, ChatGoesThroughTheTemplate) {
  EXPECT_EQ(engine_->render_chat("tiny", {.messages = {{"user", "hi"}}}),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  const auto tokens = engine_->encode_prompt("tiny", ChatPrompt{.messages = {{"user", "hi"}}});
  try {
    (void)engine_->render_chat("tiny", {.messages = {{"system", "ö"}, {"user", "caf\xe9 au lait"}}});
    ADD_FAILURE() << "bytes that are no UTF-8 were taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "messages[1].content is not UTF-8: byte 0xe9 at offset 3");
    EXPECT_EQ(error.field(), "messages");
  }
  EXPECT_EQ(tokens.front(), 1);
  EXPECT_EQ(engine_->detokenize("tiny", tokens),
            engine_->render_chat("tiny", {.messages = {{"user", "hi"}}}));
}

TEST_F(EngineTest, ADamagedModelLeavesTheEngineServing) {
  const auto bad = folder_ / "bad.gguf";
  test::TinyModel{}.writer().set_tensor_count(3).write(bad);
  EXPECT_EQ(error_of([&] { engine_->load_model({.model = bad.string()}); }).code(), ErrorCode::kModelLoad);
  EXPECT_EQ(engine_->generate(greedy("still here", 3)).tokens.size(), 3u);
}

}  // namespace
}  // namespace mlxs
