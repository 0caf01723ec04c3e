// Steps that are handed over while the one before runs: the same answers as in turn, whatever ends, leaves or
// fails meanwhile. On the CPU and on mocks, with ring depth 3, which asks for it where nothing is gained.
#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "formats/mock_model.h"
#include "mlxs/engine.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

constexpr int kInTurn = 1, kAhead = 3;

class StepsAheadTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> start(int ring_depth, const std::string& model = {},
                                std::shared_ptr<EngineObserver> observer = nullptr) {
    auto engine = Engine::create({.threads = 2,
                                  .ring_depth = ring_depth,
                                  .cache_dir = (dir_.path() / "cache").string(),
                                  .observer = std::move(observer)});
    if (tiny_.empty()) tiny_ = test::TinyModel{}.write(dir_.path()).string();
    engine->load_model({.model = model.empty() ? tiny_ : model, .served_name = "m"});
    return engine;
  }
  static GenerateParams request(int max_tokens, std::string prompt = "hello") {
    return {.model = "m",
            .prompt = std::move(prompt),
            .max_tokens = max_tokens,
            .temperature = 0,
            .ignore_eos = true};
  }
  static EngineSchedulerStats stats(const Engine& engine) { return engine.scheduler_stats().at(0); }

  // Everybody is gone and holds nothing. Cancels are heard of between steps: looks until they were.
  static void expect_all_free(const Engine& engine) {
    EngineSchedulerStats now = stats(engine);
    for (int tries = 0; tries < 5000 && now.running + now.waiting + now.kv_pages_held > 0; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      now = stats(engine);
    }
    EXPECT_EQ(now.running + now.waiting + now.paused, 0);
    EXPECT_EQ(now.kv_pages_held, 0);
  }
  // The words that a mock says, in order.
  static std::vector<std::int32_t> words(int count) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) tokens[static_cast<std::size_t>(i)] = kMockFirstWord + i % kMockWords;
    return tokens;
  }
  static std::vector<std::int32_t> tokens_of(Generator& generator, std::string* error = nullptr) {
    std::vector<std::int32_t> tokens;
    while (const auto chunk = generator.next()) {
      if (chunk->type == Chunk::Type::kError && error != nullptr) *error = chunk->error_message;
      if (chunk->token_id >= 0) tokens.push_back(chunk->token_id);
    }
    return tokens;
  }

  const test::TempDir dir_;
  std::string tiny_;
};

// Alone, so that both engines compute the same rows: equal to the last bit.
TEST_F(StepsAheadTest, AnswersAreThoseOfStepsInTurn) {
  const auto in_turn = start(kInTurn), ahead = start(kAhead);
  EXPECT_FALSE(stats(*in_turn).runs_ahead);
  EXPECT_TRUE(stats(*ahead).runs_ahead);
  std::uint64_t before = 0;
  const auto compare = [&](const char* what, GenerateParams params, bool goes_ahead) {
    SCOPED_TRACE(what);
    const GenerateResult expected = in_turn->generate(params), result = ahead->generate(params);
    EXPECT_EQ(result.tokens, expected.tokens);
    EXPECT_EQ(result.text, expected.text);
    EXPECT_EQ(result.finish, expected.finish);
    EXPECT_EQ(result.stats.generated_tokens, expected.stats.generated_tokens);
    const std::uint64_t now = stats(*ahead).steps_ahead;
    if (goes_ahead) {
      EXPECT_GT(now, before);
    } else {
      EXPECT_EQ(now, before);
    }
    before = now;
    return expected;
  };
  const GenerateResult greedy = compare("greedy", request(90), true);
  GenerateParams params = request(90);
  params.temperature = 1.2f;
  params.seed = 7;
  compare("drawn", params, true);
  params.top_k = 40;
  params.top_p = 0.9f;
  params.top_logprobs = 3;
  compare("with logprobs", params, true);
  compare("a token", request(1), false);
  compare("two tokens", request(2), true);

  params = request(90);
  params.stop_token_ids = {greedy.tokens.at(40)};
  compare("until a stop token", params, true);
  params = request(60);
  params.repetition_penalty = 1.3f;
  compare("its rows count the token that they are fed with", params, true);
  params.presence_penalty = 0.7f;
  params.frequency_penalty = 0.4f;
  params.temperature = 0.9f;
  params.seed = 3;
  compare("every penalty", params, true);
  params = request(60);
  params.logit_bias = {{70, 2.0f}};
  compare("biased", params, true);
  params = request(60);
  params.ignore_eos = false;
  params.structured = {StructuredOutput::Kind::kRegex, "[a-f]{3}-[0-9]{1,40};"};
  compare("of a grammar", params, false);

  EXPECT_GT(stats(*ahead).void_rows, 0u) << "behind the stops";
  EXPECT_GT(stats(*ahead).hidden_seconds, 0.0);
  EXPECT_EQ(stats(*in_turn).steps_ahead, 0u);
  EXPECT_EQ(stats(*in_turn).hidden_seconds, 0.0);
  expect_all_free(*ahead);
}

TEST_F(StepsAheadTest, OnlyWhereItPaysUnlessAskedFor) {
  EXPECT_FALSE(stats(*start(0)).runs_ahead) << "the CPU has done a step when it was handed over";
  EXPECT_FALSE(stats(*start(2)).runs_ahead);
  EXPECT_TRUE(stats(*start(0, "mock:delay=1")).runs_ahead);
  EXPECT_TRUE(stats(*start(2, "mock:delay=1")).runs_ahead);
  EXPECT_FALSE(stats(*start(1, "mock:delay=1")).runs_ahead);
}

TEST_F(StepsAheadTest, ManyComeAndGo) {
  const auto engine = start(kAhead, "mock:tokens=400");
  std::vector<std::jthread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < 30; ++i) {
        GenerateParams params = request(20 + 13 * ((client + i) % 9), "client " + std::to_string(client));
        const auto generator = engine->create_generator(params);
        if ((client + i) % 3 > 0) {
          EXPECT_EQ(tokens_of(*generator), words(*params.max_tokens));
        } else {
          for (int token = 0; token < 7; ++token) EXPECT_TRUE(generator->next());
        }
      }
    });
  }
  clients.clear();
  expect_all_free(*engine);
  EXPECT_GT(stats(*engine).steps_ahead, 100u);
}

TEST_F(StepsAheadTest, ChoicesOfOnePrompt) {
  const auto engine = start(kAhead);
  std::vector<GenerateParams> all(5, request(50, std::string(70, 'x')));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].temperature = 1.0f;
    all[i].seed = i / 2;  // pairs that draw alike
  }
  std::vector<std::vector<std::int32_t>> answers;
  for (const auto& generator : engine->create_generators(all)) answers.push_back(tokens_of(*generator));
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_EQ(answers[2], answers[3]);
  EXPECT_NE(answers[0], answers[2]);
  EXPECT_GT(stats(*engine).steps_ahead, 30u);
  expect_all_free(*engine);
}

TEST_F(StepsAheadTest, ARowThatNeedsTheHostMakesAllWait) {
  const auto engine = start(kAhead, "mock:tokens=300");
  GenerateParams bound = request(100);
  bound.ignore_eos = false;
  bound.structured = {StructuredOutput::Kind::kRegex, "[a-z ]{60}"};
  const std::vector<GenerateParams> all{request(300), bound};
  const auto generators = engine->create_generators(all);
  EXPECT_EQ(tokens_of(*generators[0]), words(300));
  EXPECT_FALSE(tokens_of(*generators[1]).empty());
  const EngineSchedulerStats now = stats(*engine);
  EXPECT_GT(now.steps_ahead, 100u) << "when it was done";
  EXPECT_LT(now.steps_ahead, now.steps - 10);
}

// Failures of a step that is handed over and of one that ends, with another behind it.
TEST_F(StepsAheadTest, AStepThatFailsEndsItsRequestsAndNoOthers) {
  const auto engine = start(kAhead, "mock:tokens=40,fail=7");
  int failed = 0, whole = 0;
  for (int i = 0; i < 20; ++i) {
    std::string error;
    const auto tokens = tokens_of(*engine->create_generator(request(9)), &error);
    ASSERT_LE(tokens.size(), 9u);
    EXPECT_EQ(tokens, words(static_cast<int>(tokens.size())));
    EXPECT_EQ(error.empty(), tokens.size() == 9) << error;
    (error.empty() ? whole : failed) += 1;
  }
  EXPECT_GT(failed, 2);
  EXPECT_GT(whole, 2);
  expect_all_free(*engine);
  EXPECT_EQ(stats(*engine).finished, 20u);
}

TEST_F(StepsAheadTest, WhoUsesTheBackendMeanwhileFindsNoStepUnderWay) {
  const auto engine = start(kAhead);
  const std::vector<std::int32_t> prompt{40, 50, 60, 70};
  const std::vector<float> logits = engine->evaluate("m", prompt);
  const std::vector<std::int32_t> expected = engine->generate(request(200)).tokens;
  const auto generator = engine->create_generator(request(200));
  std::vector<std::int32_t> tokens;
  while (const auto chunk = generator->next()) {
    if (chunk->token_id >= 0) tokens.push_back(chunk->token_id);
    if (tokens.size() % 50 == 25) {
      EXPECT_EQ(engine->evaluate("m", prompt), logits);
    }
  }
  EXPECT_EQ(tokens, expected);
}

TEST_F(StepsAheadTest, NotBesideAnotherModel) {
  const auto engine = start(kAhead, "mock:tokens=100");
  engine->load_model({.model = "mock:tokens=5", .served_name = "other"});
  EXPECT_EQ(engine->generate(request(100)).tokens, words(100));
  EXPECT_EQ(stats(*engine).steps_ahead, 0u);
  const auto generator = engine->create_generator(request(100));
  engine->unload_model("other");
  EXPECT_EQ(tokens_of(*generator), words(100));
  EXPECT_EQ(engine->generate(request(100)).tokens, words(100));
  EXPECT_GT(stats(*engine).steps_ahead, 50u);
}

TEST_F(StepsAheadTest, UnloadingEndsWhatIsUnderWay) {
  const auto engine = start(kAhead, "mock:tokens=100000,delay=1");
  const auto generator = engine->create_generator(request(5000));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(generator->next());
  engine->unload_model("m");
  std::string error;
  tokens_of(*generator, &error);
  EXPECT_NE(error.find("was unloaded"), std::string::npos) << error;
}

class Watcher final : public EngineObserver {
 public:
  void on_first_token(std::string_view, double) override {}
  void on_inter_token(std::string_view, double) override {}
  void on_finished(const RequestRecord&) override {}
  void on_step(const StepRecord& step) override {
    EXPECT_GE(step.started, ended) << "steps are told in turn, without an overlap";
    for (const double part : {step.plan_seconds, step.launch_seconds, step.sample_seconds, step.wait_seconds,
                              step.commit_seconds, step.hidden_seconds}) {
      EXPECT_GE(part, 0.0);
    }
    EXPECT_LE(step.wait_seconds, step.run_seconds);
    ended = step.started + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                               std::chrono::duration<double>(step.plan_seconds + step.run_seconds));
    hidden += step.hidden_seconds;
    ++steps;
  }
  std::chrono::steady_clock::time_point ended{};
  double hidden = 0;
  std::uint64_t steps = 0;
};

// Who does not read is paused while a row of its is under way; its time has every part once.
TEST_F(StepsAheadTest, TimeIsCountedOnce) {
  const auto watcher = std::make_shared<Watcher>();
  auto engine = start(kAhead, "mock:tokens=3000", watcher);
  RequestTimeline slow;
  GenerateParams params = request(1500);
  params.on_ended = [&](RequestTimeline record) { slow = std::move(record); };
  const auto generator = engine->create_generator(params);
  EXPECT_EQ(engine->generate(request(2500, "another")).tokens, words(2500));
  EXPECT_EQ(tokens_of(*generator), words(1500));
  const EngineSchedulerStats now = stats(*engine);
  engine.reset();
  EXPECT_GT(slow.pauses, 0);
  EXPECT_GT(slow.parts[static_cast<std::size_t>(RequestPart::kPaused)], 0.0);
  EXPECT_NEAR(std::accumulate(slow.parts.begin(), slow.parts.end(), 0.0), slow.total_seconds, 1e-6);
  for (const double part : slow.parts) EXPECT_GE(part, 0.0);
  EXPECT_GE(watcher->steps, now.steps);
  EXPECT_GE(watcher->hidden, now.hidden_seconds);
  EXPECT_GT(watcher->hidden, 0.0);
}

}  // namespace
}  // namespace mlxs
