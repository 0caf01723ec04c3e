#include "serve/openai_format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mlxs {
namespace {

using nlohmann::json;

AnswerInfo info(OpenAiApi api, std::size_t prompts = 1, std::size_t n = 1, bool include_usage = false) {
  return {.api = api,
          .id = "id-1",
          .created_unix_s = 5,
          .model = "m\"1",
          .fingerprint = "fp_1",
          .prompts = prompts,
          .n = n,
          .include_usage = include_usage};
}

Chunk token(std::string text) { return {.text = std::move(text), .token_id = 7}; }

Chunk scored(std::string text, std::string bytes, float logprob) {
  Chunk chunk{.text = std::move(text), .token_id = 7, .logprob = logprob, .token_bytes = std::move(bytes)};
  chunk.top_logprobs = {{7, logprob, chunk.token_bytes}, {9, -3.5f, "b"}};
  return chunk;
}

Chunk done(FinishReason reason, int prompt, int generated, int cached = 0) {
  Chunk chunk{.type = Chunk::Type::kDone, .finish = reason};
  chunk.stats.prompt_tokens = prompt;
  chunk.stats.cached_prompt_tokens = cached;
  chunk.stats.generated_tokens = generated;
  return chunk;
}

// Splits a stream into its events' data; fails on any other framing.
std::vector<std::string> events(std::string_view stream) {
  std::vector<std::string> result;
  while (!stream.empty()) {
    EXPECT_TRUE(stream.starts_with("data: ")) << stream;
    const std::size_t end = stream.find("\n\n");
    if (end == std::string_view::npos) {
      ADD_FAILURE() << "an event without an end: " << stream;
      break;
    }
    result.emplace_back(stream.substr(6, end - 6));
    EXPECT_EQ(result.back().find('\n'), std::string::npos);
    stream.remove_prefix(end + 2);
  }
  return result;
}

TEST(ChatDocument, HasTheWholeAnswer) {
  const auto format = make_openai_document(info(OpenAiApi::kChat));
  std::string out;
  format->add(0, token("Hel"), out);
  format->add(0, token("lo \"you\""), out);
  format->add(0, done(FinishReason::kLength, 11, 2, 8), out);
  EXPECT_EQ(out, "");
  format->finish(out);
  EXPECT_EQ(json::parse(out), json::parse(R"({
    "id":"id-1","object":"chat.completion","created":5,"model":"m\"1","system_fingerprint":"fp_1",
    "choices":[{"index":0,"message":{"role":"assistant","content":"Hello \"you\"","refusal":null},"logprobs":null,
                "finish_reason":"length"}],
    "usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":8},
             "completion_tokens_details":{"reasoning_tokens":0}}})"));
}

TEST(ChatDocument, ChoicesKeepTheirOrderAndThePromptCountsOnce) {
  const auto format = make_openai_document(info(OpenAiApi::kCompletion, 2, 2));
  std::string out;
  for (const std::size_t choice : {3u, 1u, 0u, 2u}) {
    format->add(choice, token(std::string(1, static_cast<char>('a' + choice))), out);
    format->add(choice, done(FinishReason::kStop, choice < 2 ? 10 : 20, 1), out);
  }
  format->finish(out);
  const json answer = json::parse(out);
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(answer["choices"][i]["finish_reason"], "stop");
  }
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 30);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4);
  EXPECT_EQ(answer["usage"]["total_tokens"], 34);
}

TEST(ChatDocument, LogprobsAsOpenAiWritesThem) {
  const auto format = make_openai_document(info(OpenAiApi::kChat));
  std::string out;
  format->add(0, scored("", "\xF0\x9F", -0.5f), out);
  format->add(0, scored("\xF0\x9F\xA6\x99", "\xA6\x99", -0.25f), out);
  format->add(0, done(FinishReason::kStop, 1, 2), out);
  format->finish(out);
  const json logprobs = json::parse(out)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["refusal"], nullptr);
  ASSERT_EQ(logprobs["content"].size(), 2u);
  const json& first = logprobs["content"][0];
  EXPECT_EQ(first["bytes"], json::parse("[240,159]"));
  EXPECT_EQ(first["logprob"], -0.5);
  EXPECT_EQ(first["top_logprobs"].size(), 2u);
  EXPECT_EQ(first["top_logprobs"][1], json::parse(R"({"token":"b","logprob":-3.5,"bytes":[98]})"));
}

TEST(CompletionDocument, LogprobsAreParallelArrays) {
  const auto format = make_openai_document(info(OpenAiApi::kCompletion));
  std::string out;
  format->add(0, scored("é", "é", -0.5f), out);
  format->add(0, scored("", "\xF0\x9F", -0.125f), out);
  format->add(0, scored("🦙", "\xA6\x99", -0.25f), out);
  format->add(0, scored("x", "x", -1.0f), out);
  format->add(0, done(FinishReason::kStop, 1, 4), out);
  format->finish(out);
  const json choice = json::parse(out)["choices"][0];
  EXPECT_EQ(choice["text"], "é🦙x");
  EXPECT_EQ(choice["logprobs"]["tokens"], json::array({"é", "bytes:\\xf0\\x9f", "bytes:\\xa6\\x99", "x"}));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json::array({-0.5, -0.125, -0.25, -1.0}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json::array({0, 1, 2, 2}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][3], json::parse(R"({"x":-1.0,"b":-3.5})"));
}

TEST(ChatStream, RoleThenContentThenFinishThenUsageThenDone) {
  const auto format = make_openai_stream(info(OpenAiApi::kChat, 1, 1, true));
  std::string out;
  format->add(0, token("Hi"), out);
  format->add(0, token(""), out);  // half a character: nothing to say
  format->add(0, token("!\n"), out);
  format->add(0, done(FinishReason::kStop, 4, 3), out);
  format->finish(out);
  const std::vector<std::string> data = events(out);
  ASSERT_EQ(data.size(), 6u);
  const auto choice = [&](std::size_t i) { return json::parse(data[i])["choices"][0]; };
  EXPECT_EQ(choice(0)["delta"], json::parse(R"({"role":"assistant","content":""})"));
  EXPECT_EQ(choice(1)["delta"], json::parse(R"({"content":"Hi"})"));
  EXPECT_EQ(choice(2)["delta"], json::parse(R"({"content":"!\n"})"));
  EXPECT_EQ(choice(3)["delta"], json::object());
  for (const std::size_t i : {0u, 1u, 2u}) EXPECT_EQ(choice(i)["finish_reason"], nullptr);
  EXPECT_EQ(choice(3)["finish_reason"], "stop");
  for (std::size_t i = 0; i < 4; ++i) {
    const json event = json::parse(data[i]);
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    EXPECT_EQ(event["id"], "id-1");
    EXPECT_EQ(event["model"], "m\"1");
    EXPECT_EQ(event["system_fingerprint"], "fp_1");
    EXPECT_TRUE(event.contains("usage"));
    EXPECT_EQ(event["usage"], nullptr);
  }
  EXPECT_EQ(json::parse(data[4])["choices"], json::array());
  EXPECT_EQ(json::parse(data[4])["usage"]["total_tokens"], 7);
  EXPECT_EQ(data[5], "[DONE]");
}

TEST(ChatStream, NoUsageUnlessAskedFor) {
  const auto format = make_openai_stream(info(OpenAiApi::kChat));
  std::string out;
  format->add(0, token("Hi"), out);
  format->add(0, done(FinishReason::kStop, 4, 1), out);
  format->finish(out);
  EXPECT_EQ(out.find("usage"), std::string::npos);
  EXPECT_EQ(events(out).size(), 4u);
}

TEST(ChatStream, EveryChoiceBeginsWithItsRole) {
  const auto format = make_openai_stream(info(OpenAiApi::kChat, 1, 2));
  std::string out;
  format->add(1, token("b"), out);
  format->add(0, done(FinishReason::kStop, 1, 1), out);  // the end came first
  const std::vector<std::string> data = events(out);
  ASSERT_EQ(data.size(), 4u);
  EXPECT_EQ(json::parse(data[0])["choices"][0]["index"], 1);
  EXPECT_EQ(json::parse(data[0])["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(json::parse(data[2])["choices"][0]["index"], 0);
  EXPECT_EQ(json::parse(data[2])["choices"][0]["delta"]["role"], "assistant");
}

TEST(ChatStream, TokensWithoutTextStillTellTheirLogprob) {
  const auto format = make_openai_stream(info(OpenAiApi::kChat));
  std::string out;
  format->add(0, scored("", "\xF0\x9F", -0.5f), out);
  format->add(0, scored("🦙", "\xA6\x99", -0.25f), out);
  const std::vector<std::string> data = events(out);
  ASSERT_EQ(data.size(), 3u);
  EXPECT_EQ(json::parse(data[1])["choices"][0]["logprobs"]["content"].size(), 1u);
  EXPECT_EQ(json::parse(data[2])["choices"][0]["logprobs"]["content"].size(), 1u);  // not the first again
}

TEST(CompletionStream, HasTextInsteadOfDeltas) {
  const auto format = make_openai_stream(info(OpenAiApi::kCompletion));
  std::string out;
  format->add(0, token("Hi"), out);
  format->add(0, done(FinishReason::kLength, 4, 1), out);
  format->finish(out);
  const std::vector<std::string> data = events(out);
  ASSERT_EQ(data.size(), 3u);
  EXPECT_EQ(json::parse(data[0])["object"], "text_completion");
  EXPECT_EQ(json::parse(data[0])["choices"][0],
            json::parse(R"({"index":0,"text":"Hi","logprobs":null,"finish_reason":null})"));
  EXPECT_EQ(json::parse(data[1])["choices"][0],
            json::parse(R"({"index":0,"text":"","logprobs":null,"finish_reason":"length"})"));
}

TEST(Stream, AFailureOnTheWayIsAnEvent) {
  const auto format = make_openai_stream(info(OpenAiApi::kChat));
  std::string out;
  format->add(0, token("Hi"), out);
  out.clear();
  format->fail(Error(ErrorCode::kInternal, "the step failed"), out);
  const std::vector<std::string> data = events(out);
  ASSERT_EQ(data.size(), 1u);
  EXPECT_EQ(json::parse(data[0])["error"]["message"], "the step failed");
  EXPECT_EQ(json::parse(data[0])["error"]["type"], "server_error");
}

}  // namespace
}  // namespace mlxs
