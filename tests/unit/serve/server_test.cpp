// The server in this process, with a tiny real model behind it: limits, connections, disconnects, draining.
#include "serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "unit/serve/raw_client.h"

namespace mlxs {
namespace {

using nlohmann::json;
using test::RawClient;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kChat = "/v1/chat/completions";
constexpr int kContext = 32768;
constexpr int kEndless = 30'000;  // tokens: longer than any test looks

// A body whose answer is `tokens` long, whatever the model would rather do.
std::string body(int tokens, const std::string& more = "") {
  return R"({"messages":[{"role":"user","content":"hello"}],"ignore_eos":true,"max_tokens":)" +
         std::to_string(tokens) + (more.empty() ? "" : "," + more) + "}";
}

class ServerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempDir();
    EngineOptions options;
    options.threads = 1;
    options.cache_dir = folder_->path().string();
    engine_ = Engine::create(options).release();
    engine_->load_model({.model = test::TinyModel{.context = kContext}.write(folder_->path()).string(),
                         .served_name = "tiny",
                         .context_length = 0});
  }
  static void TearDownTestSuite() {
    delete engine_;
    delete folder_;
  }

  ServerTest() {
    options_.port = 0;
    options_.io_threads = 2;
  }
  ~ServerTest() override {
    server_.reset();
    wait_until_idle();  // whatever a test left behind: its requests ended with it
  }

  std::uint16_t start() {
    server_ = std::make_unique<Server>(options_, *engine_, [] { return std::string("some_metric 1\n"); });
    server_->start();
    return server_->port();
  }

  static int pages_held() { return engine_->scheduler_stats().at(0).kv_pages_held; }
  static int busy() {
    const EngineSchedulerStats stats = engine_->scheduler_stats().at(0);
    return stats.running + stats.waiting + stats.paused;
  }
  static void wait_until_idle() {
    for (int i = 0; i < 3000 && (busy() > 0 || pages_held() > 0); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(busy(), 0);
    EXPECT_EQ(pages_held(), 0);
  }

  static test::TempDir* folder_;
  static Engine* engine_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
};
test::TempDir* ServerTest::folder_ = nullptr;
Engine* ServerTest::engine_ = nullptr;

// ---------------------------------------------------------------- answers

TEST_F(ServerTest, AnswersAChatRequest) {
  RawClient client(start());
  const auto response = client.post(kChat, body(5), "x-request-id: mine-7\r\n");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.head, HasSubstr("x-request-id: mine-7\r\n"));
  const json answer = json::parse(response.body);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 5);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["model"], "tiny");
}

TEST_F(ServerTest, StreamsInChunksAndKeepsTheConnection) {
  RawClient client(start());
  for (int round = 0; round < 2; ++round) {
    client.start_post(kChat, body(5, R"("stream":true)"));
    const std::string head = client.receive_until("\r\n\r\n");
    EXPECT_THAT(head, HasSubstr("200 OK"));
    EXPECT_THAT(head, HasSubstr("content-type: text/event-stream"));
    EXPECT_THAT(head, HasSubstr("transfer-encoding: chunked"));
    const std::string events = client.receive_until("\r\n0\r\n\r\n");
    EXPECT_THAT(events, HasSubstr("data: [DONE]\n\n"));
  }
  EXPECT_EQ(client.get("/health").status, 200);
}

TEST_F(ServerTest, OldClientsGetAStreamThatEndsWithTheConnection) {
  RawClient client(start());
  const std::string text = body(3, R"("stream":true)");
  client.send("POST " + std::string(kChat) + " HTTP/1.0\r\ncontent-length: " + std::to_string(text.size()) +
              "\r\n\r\n" + text);
  const std::string all = client.receive_all();
  EXPECT_THAT(all, Not(HasSubstr("chunked")));
  EXPECT_THAT(all, HasSubstr("connection: close\r\n"));
  EXPECT_TRUE(all.ends_with("data: [DONE]\n\n"));
}

TEST_F(ServerTest, ChoicesWithSeedsDifferAndRepeat) {
  RawClient client(start());
  const auto ask = [&] {
    std::vector<std::string> texts;
    const json answer = json::parse(client.post(kChat, body(12, R"("n":3,"seed":5,"temperature":2)")).body);
    for (const json& choice : answer["choices"]) texts.push_back(choice["message"]["content"]);
    EXPECT_EQ(answer["usage"]["completion_tokens"], 36);
    return texts;
  };
  const auto first = ask();
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first, ask());
  EXPECT_TRUE(first[0] != first[1] || first[1] != first[2]);
}

TEST_F(ServerTest, ServesOperators) {
  RawClient client(start());
  EXPECT_EQ(client.get("/health/live").status, 200);
  EXPECT_EQ(client.get("/health/ready").status, 200);
  EXPECT_THAT(client.get("/metrics").body, HasSubstr("some_metric 1\n"));
  const json stats = json::parse(client.get("/v1/scheduler/stats").body);
  EXPECT_EQ(stats["data"][0]["model"], "tiny");
  EXPECT_GT(stats["data"][0]["kv_pages"]["total"], 0);
  EXPECT_EQ(json::parse(client.get("/v1/models/tiny").body)["id"], "tiny");
  EXPECT_EQ(client.get("/v1/models/nothing").status, 404);
}

TEST_F(ServerTest, ErrorsNameTheClientsField) {
  RawClient client(start());
  const std::string long_text(40'000, 'x');
  const auto overflow =
      client.post(kChat, R"({"messages":[{"role":"user","content":")" + long_text + R"("}],"max_tokens":1})");
  EXPECT_EQ(overflow.status, 400);
  EXPECT_EQ(json::parse(overflow.body)["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(json::parse(overflow.body)["error"]["param"], "messages");
  EXPECT_THAT(overflow.body, HasSubstr(std::to_string(kContext)));
  const auto many = client.post(kChat, body(5, R"("n":1000)"));
  EXPECT_EQ(json::parse(many.body)["error"]["param"], "n");
}

// ---------------------------------------------------------------- connections

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrder) {
  RawClient client(start());
  const std::string text = body(4);
  client.send("GET /v1/models/tiny HTTP/1.1\r\n\r\nPOST " + std::string(kChat) +
              " HTTP/1.1\r\ncontent-length: " + std::to_string(text.size()) + "\r\n\r\n" + text +
              "GET /nowhere HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.response().body, HasSubstr("\"tiny\""));
  EXPECT_THAT(client.response().body, HasSubstr("chat.completion"));
  EXPECT_EQ(client.response().status, 404);
  EXPECT_THAT(client.response().body, HasSubstr("some_metric 1\n"));
}

TEST_F(ServerTest, RequestsMayComeByteByByte) {
  RawClient client(start());
  const std::string text = body(2);
  const std::string request = "POST " + std::string(kChat) +
                              " HTTP/1.1\r\ncontent-length: " + std::to_string(text.size()) + "\r\n\r\n" +
                              text;
  for (const char c : request) client.send({&c, 1});
  EXPECT_EQ(client.response().status, 200);
}

TEST_F(ServerTest, ChunkedBodiesAndHeadAndExpectWork) {
  RawClient client(start());
  const std::string text = body(2);
  client.send("POST " + std::string(kChat) +
              " HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.receive_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("5\r\n" + text.substr(0, 5) + "\r\n");
  char size[16];
  std::snprintf(size, sizeof size, "%zx", text.size() - 5);
  client.send(std::string(size) + "\r\n" + text.substr(5) + "\r\n0\r\n\r\n");
  EXPECT_EQ(client.response().status, 200);

  client.send("HEAD /metrics HTTP/1.1\r\n\r\n");
  const auto head = client.response(false);
  EXPECT_EQ(head.status, 200);
  EXPECT_THAT(head.head, HasSubstr("content-length: "));
  EXPECT_THAT(client.get("/metrics").body, HasSubstr("some_metric 1\n"));  // no body of HEAD came in between
}

TEST_F(ServerTest, ConnectionCloseIsObeyed) {
  RawClient client(start());
  client.send("GET /metrics HTTP/1.1\r\nconnection: close\r\n\r\n");
  EXPECT_THAT(client.receive_all(), HasSubstr("connection: close\r\n"));
  RawClient old(server_->port());
  old.send("GET /metrics HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  EXPECT_THAT(old.response().head, HasSubstr("connection: keep-alive\r\n"));
  EXPECT_EQ(old.get("/metrics").status, 200);
}

TEST_F(ServerTest, WhatIsNotHttpGetsAnAnswerAndTheEnd) {
  const std::uint16_t port = start();
  for (const std::string& bytes : {
           std::string("hello\r\n\r\n"),
           std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
           std::string("GET /\r\n\r\n"),
           std::string("GET / HTTP/7.0\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nbad header\r\n\r\n"),
           std::string("POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"),
           std::string("POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"),
           std::string("POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n"),
           std::string("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
       }) {
    RawClient client(port);
    client.send(bytes);
    client.shutdown_send();
    const std::string all = client.receive_all();
    EXPECT_TRUE(all.starts_with("HTTP/1.1 400 ") || all.starts_with("HTTP/1.1 404 "))
        << bytes << " → " << all;
    EXPECT_EQ(all.find("HTTP/1.1 ", 5), std::string::npos) << "one answer, not two: " << all;
  }
  EXPECT_EQ(RawClient(port).get("/health").status, 200);
}

TEST_F(ServerTest, LimitsOfSize) {
  options_.max_header_bytes = 4096;
  options_.max_body_bytes = 10'000;
  const std::uint16_t port = start();

  RawClient header(port);
  header.send("GET / HTTP/1.1\r\nx: " + std::string(5000, 'a') + "\r\n\r\n");
  EXPECT_EQ(header.response().status, 431);
  EXPECT_EQ(header.receive_all(), "");

  RawClient announced(port);
  announced.send("POST " + std::string(kChat) +
                 " HTTP/1.1\r\ncontent-length: 10001\r\n\r\n");  // and not a byte of it
  const auto refused = announced.response();
  EXPECT_EQ(refused.status, 413);
  EXPECT_THAT(refused.body, HasSubstr("10000 bytes"));
  EXPECT_THAT(refused.head, HasSubstr("connection: close"));

  RawClient chunked(port);
  chunked.send("POST " + std::string(kChat) + " HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
  const std::string piece = "1000\r\n" + std::string(4096, ' ') + "\r\n";
  for (int i = 0; i < 100 && chunked.send(piece); ++i) {
  }
  EXPECT_EQ(chunked.response().status, 413);

  RawClient fits(port);
  std::string exact = body(1);
  exact.resize(10'000, ' ');
  EXPECT_EQ(fits.post(kChat, exact).status, 200);
}

TEST_F(ServerTest, LimitsOfTime) {
  options_.request_timeout_ms = 200;
  options_.idle_timeout_ms = 200;
  const std::uint16_t port = start();
  RawClient slow(port);
  slow.send("POST /v1/completions HTTP/1.1\r\ncontent-length: 50\r\n\r\n{");
  const auto late = slow.response();
  EXPECT_EQ(late.status, 408);
  EXPECT_EQ(slow.receive_all(), "");
  RawClient silent(port);
  EXPECT_EQ(silent.receive_all(), "");
}

TEST_F(ServerTest, ConnectionsOverTheLimitAreToldSo) {
  options_.max_connections = 2;
  const std::uint16_t port = start();
  RawClient first(port), second(port);
  EXPECT_EQ(first.get("/health").status, 200);
  EXPECT_EQ(second.get("/health").status, 200);
  RawClient third(port);
  const auto response = third.response();
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.head, HasSubstr("retry-after: "));
  first.close();
  for (int i = 0; i < 1000; ++i) {  // the server notices soon
    RawClient again(port);
    if (again.get("/health").status == 200) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL() << "the place did not come back";
}

TEST_F(ServerTest, APortInUseIsNamed) {
  options_.port = start();
  Server other(options_, *engine_, [] { return std::string(); });
  try {
    other.start();
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("port " + std::to_string(options_.port) + " is in use"));
  }
}

// ---------------------------------------------------------------- load and disconnects

TEST_F(ServerTest, NoPlaceMeansTryAgain) {
  options_.admission.max_in_flight = 1;
  const std::uint16_t port = start();
  RawClient holder(port);
  holder.start_post(kChat, body(kEndless, R"("stream":true)"));
  holder.receive_until("data: ");
  RawClient other(port);
  const auto response = other.post(kChat, body(1));
  EXPECT_EQ(response.status, 429);
  EXPECT_THAT(response.head, HasSubstr("retry-after: "));
  EXPECT_EQ(json::parse(response.body)["error"]["type"], "rate_limit_error");
  holder.close();
  wait_until_idle();
  for (int i = 0; i < 1000; ++i) {
    if (other.post(kChat, body(1)).status == 200) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL() << "the place did not come back";
}

TEST_F(ServerTest, ClientsThatLeaveFreeEverything) {
  const std::uint16_t port = start();
  for (const bool stream : {true, false}) {
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 20; ++i) {
      clients.push_back(std::make_unique<RawClient>(port));
      clients.back()->start_post(kChat, body(kEndless, stream ? R"("stream":true,"n":2)" : R"("n":2)"));
    }
    if (stream) clients.front()->receive_until("data: ");
    clients.clear();
    wait_until_idle();
  }
  EXPECT_EQ(RawClient(port).post(kChat, body(1)).status, 200);
}

TEST_F(ServerTest, AReaderThatStopsIsPausedAndHoldsUpNobody) {
  options_.send_buffer_bytes = 4096;
  const std::uint16_t port = start();
  RawClient slow(port, 4096);
  slow.start_post(kChat, body(1000, R"("stream":true,"logprobs":true,"top_logprobs":20)"));
  slow.receive_until("data: ");
  RawClient quick(port);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(quick.post(kChat, body(20)).status, 200);
  for (int i = 0; i < 3000 && engine_->scheduler_stats().at(0).paused == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(engine_->scheduler_stats().at(0).paused, 1);
  // It reads again and gets everything.
  const std::string rest = slow.receive_until("data: [DONE]");
  EXPECT_THAT(rest, HasSubstr("\"finish_reason\":\"length\""));
}

TEST_F(ServerTest, AReaderThatNeverComesBackIsGivenUp) {
  options_.send_buffer_bytes = 4096;
  options_.write_timeout_ms = 200;
  RawClient slow(start(), 4096);
  slow.start_post(kChat, body(kEndless, R"("stream":true,"logprobs":true,"top_logprobs":20)"));
  slow.receive_until("data: ");
  wait_until_idle();
}

// ---------------------------------------------------------------- draining

TEST_F(ServerTest, DrainingFinishesWhatRunsAndClosesWhatIdles) {
  const std::uint16_t port = start();
  RawClient idle(port), running(port);
  EXPECT_EQ(idle.get("/health").status, 200);
  running.start_post(kChat, body(300, R"("stream":true)"));
  running.receive_until("data: ");
  std::future<void> drained = std::async(std::launch::async, [&] { server_->drain(60); });
  EXPECT_EQ(idle.receive_all(), "");
  const std::string rest = running.receive_all();
  EXPECT_THAT(rest, HasSubstr("data: [DONE]"));
  drained.get();
}

TEST_F(ServerTest, DrainingEndsWhatTakesTooLong) {
  options_.send_buffer_bytes = 4096;
  const std::uint16_t port = start();
  RawClient stuck(port, 4096), idle(port);
  stuck.start_post(kChat, body(kEndless, R"("stream":true,"logprobs":true,"top_logprobs":20)"));
  stuck.receive_until("data: ");
  server_->drain(0.2);
  EXPECT_EQ(idle.receive_all(), "");
  wait_until_idle();
}

TEST_F(ServerTest, StoppingTellsStreamsWhy) {
  const std::uint16_t port = start();
  RawClient document(port), streaming(port);
  streaming.start_post(kChat, body(kEndless, R"("stream":true)"));
  streaming.receive_until("data: ");
  document.start_post(kChat, body(kEndless));
  while (busy() < 2) std::this_thread::yield();
  server_->stop();
  EXPECT_THAT(streaming.receive_all(), HasSubstr("the server is shutting down"));
  EXPECT_THAT(document.receive_all(), HasSubstr("HTTP/1.1 503 "));
}

TEST_F(ServerTest, WrongOptionsAreNamed) {
  options_.io_threads = 0;
  EXPECT_THROW(Server(options_, *engine_, [] { return std::string(); }), Error);
}

}  // namespace
}  // namespace mlxs
