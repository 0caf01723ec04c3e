// GenerateParams::on_ended: one record a request, whatever becomes of it, whose parts are all of its time.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "mlxs/engine.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace mlxs {
namespace {

class OnEndedTest : public ::testing::Test {
 protected:
  void start(EngineOptions options) {
    options.cache_dir = (dir_.path() / "cache").string();
    options.threads = 2;
    engine_ = Engine::create(options);
    engine_->load_model({.model = test::TinyModel{}.write(dir_.path()).string()});
  }

  GenerateParams request(const std::string& id, std::string prompt, int max_tokens) {
    GenerateParams params{.model = "tiny",
                          .prompt = std::move(prompt),
                          .max_tokens = max_tokens,
                          .temperature = 0,
                          .ignore_eos = true};
    params.request_id = id;
    params.on_ended = [this](RequestTimeline record) {
      const std::lock_guard lock(mutex_);
      const auto [place, first] = records_.try_emplace(record.request_id, std::move(record));
      EXPECT_TRUE(first) << place->first << " ended twice";
    };
    return params;
  }

  // Every request that was made has one record, and its parts are its time.
  void expect_records(std::size_t count) {
    engine_.reset();
    EXPECT_EQ(records_.size(), count);
    for (const auto& [id, record] : records_) {
      const double sum = std::accumulate(record.parts.begin(), record.parts.end(), 0.0);
      EXPECT_NEAR(sum, record.total_seconds, 1e-6) << id;
      for (std::size_t i = 0; i < kRequestParts; ++i) {
        EXPECT_GE(record.parts[i], 0.0) << id << ' ' << kRequestPartNames[i];
      }
      EXPECT_EQ(record.model, "tiny");
    }
  }
  double part(const std::string& id, RequestPart which) {
    return records_.at(id).parts[static_cast<std::size_t>(which)];
  }

  const test::TempDir dir_;
  std::mutex mutex_;
  std::map<std::string, RequestTimeline> records_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(OnEndedTest, TellsWhatTheLastChunkTells) {
  start({.token_budget = 16});
  const GenerateParams params = request("a", std::string(100, 'x'), 9);
  const auto generator = engine_->create_generator(params);
  Chunk last;
  while (auto chunk = generator->next()) last = *chunk;
  ASSERT_EQ(records_.size(), 1u);  // told before the last chunk can be had
  const RequestTimeline& record = records_.at("a");
  EXPECT_EQ(record.finish, "length");
  EXPECT_EQ(record.generated_tokens, 9);
  EXPECT_EQ(record.prompt_tokens, last.stats.prompt_tokens);
  EXPECT_DOUBLE_EQ(record.ttft_seconds, last.stats.ttft_seconds);
  EXPECT_DOUBLE_EQ(record.total_seconds, last.stats.total_seconds);
  EXPECT_GT(record.itl_max_seconds, 0.0);
  int chunk_tokens = 0;
  for (const PrefillChunkRecord& chunk : record.chunks) chunk_tokens += chunk.tokens;
  EXPECT_EQ(chunk_tokens, record.prompt_tokens);
  EXPECT_GE(record.chunks.size(), static_cast<std::size_t>(record.prompt_tokens / 16));
  expect_records(1);
}

TEST_F(OnEndedTest, ACrowdInASmallCacheIsExplained) {
  start({.kv_cache_bytes = 60 * 4096, .prefix_cache = false});  // 60 pages for 6 requests of 27 each
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back(
        [this, i] { engine_->generate(request("r" + std::to_string(i), "preempt me please", 400)); });
  }
  for (std::thread& client : clients) client.join();
  const std::uint64_t preemptions = engine_->scheduler_stats().at(0).preemptions;
  expect_records(6);
  std::uint64_t told = 0;
  for (const auto& [id, record] : records_) {
    told += record.preemptions.size() + static_cast<std::size_t>(record.preemptions_omitted);
    for (const PreemptionRecord& preemption : record.preemptions) {
      EXPECT_TRUE(records_.contains(preemption.for_whom.request_id));
    }
    EXPECT_EQ(record.preemptions.empty(), part(id, RequestPart::kRecompute) == 0.0) << id;
    EXPECT_LE(record.no_slot_seconds + record.no_page_seconds, part(id, RequestPart::kQueue) + 1e-6) << id;
  }
  EXPECT_GT(preemptions, 0u);
  EXPECT_EQ(told, preemptions);
}

TEST_F(OnEndedTest, ASlowReaderSeesThatItWasSlow) {
  start({});
  const auto generator = engine_->create_generator(request("slow", "hello", 200));
  while (engine_->scheduler_stats().at(0).paused == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  while (generator->next()) {
  }
  expect_records(1);
  EXPECT_GE(records_.at("slow").pauses, 1);
  EXPECT_GE(part("slow", RequestPart::kPaused), 0.02);
}

TEST_F(OnEndedTest, WhoLeavesOrIsRefusedHasARecordToo) {
  start({.max_running = 1, .max_queue_depth = 1});
  auto running = engine_->create_generator(request("running", "hello", 300));
  const auto has_place = [this] {
    const EngineSchedulerStats stats = engine_->scheduler_stats().at(0);
    return stats.running + stats.paused > 0;  // paused: unread, it fills its channel within a moment
  };
  while (!has_place()) std::this_thread::yield();
  auto waiting = engine_->create_generator(request("waiting", "hello", 300));
  const auto refused = engine_->create_generator(request("refused", "hello", 300));
  while (refused->next()) {
  }
  waiting.reset();
  running.reset();
  expect_records(3);
  EXPECT_EQ(records_.at("running").finish, "cancelled");
  EXPECT_EQ(records_.at("waiting").finish, "cancelled");
  EXPECT_EQ(records_.at("waiting").running_ahead, 1);
  ASSERT_EQ(records_.at("waiting").seen_running.size(), 1u);
  EXPECT_EQ(records_.at("waiting").seen_running[0].request_id, "running");
  EXPECT_EQ(records_.at("refused").finish, "error");
  EXPECT_NE(records_.at("refused").error.find("queue"), std::string::npos);
}

}  // namespace
}  // namespace mlxs
