// Ollama's bodies: durations, messages and their calls, what is read and what is refused.
#include "serve/ollama_request.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace mlxs {
namespace {

using namespace std::chrono_literals;

TEST(OllamaRequest, Durations) {
  EXPECT_EQ(read_keep_alive("5m"), 5min);
  EXPECT_EQ(read_keep_alive("1h30m"), 90min);
  EXPECT_EQ(read_keep_alive("1.5s"), 1500ms);
  EXPECT_EQ(read_keep_alive("250ms"), 250ms);
  EXPECT_EQ(read_keep_alive("10us"), 10us);
  EXPECT_EQ(read_keep_alive("0"), 0ns);
  EXPECT_EQ(read_keep_alive("30"), 30s);
  EXPECT_EQ(read_keep_alive(0), 0ns);
  EXPECT_EQ(read_keep_alive(2.5), 2500ms);
  for (const Json& for_ever : {Json(-1), Json("-1"), Json("-1m"), Json(1e300), Json("9999999999h")})
    EXPECT_LT(read_keep_alive(for_ever), 0ns) << for_ever;
  for (const Json& wrong : {Json(""), Json("m"), Json("5 m"), Json("5x"), Json("1h30"), Json("--1s"),
                            Json(true), Json("nan"), Json("inf"), Json("1e3s"), Json::array()})
    EXPECT_THROW(read_keep_alive(wrong), Error) << wrong;
}

TEST(OllamaRequest, DefaultsAreOllamas) {
  const auto request = parse_ollama_request(R"({"model":"m","prompt":"p"})", OllamaApi::kGenerate);
  EXPECT_FLOAT_EQ(request.params.temperature, 0.8f);
  EXPECT_FLOAT_EQ(request.params.top_p, 0.9f);
  EXPECT_EQ(request.params.top_k, 40);
  EXPECT_TRUE(request.stream);
  EXPECT_FALSE(request.empty);
  EXPECT_FALSE(request.params.max_tokens);
  EXPECT_FALSE(request.keep_alive);
  EXPECT_TRUE(request.ignored.empty());
}

TEST(OllamaRequest, NumPredictBelowOneIsNoLimit) {
  for (const int value : {0, -1, -2}) {
    const std::string body =
        R"({"model":"m","prompt":"p","options":{"num_predict":)" + std::to_string(value) + "}}";
    EXPECT_FALSE(parse_ollama_request(body, OllamaApi::kGenerate).params.max_tokens) << value;
  }
}

TEST(OllamaRequest, CallsAndResultsFindEachOther) {
  const auto request = parse_ollama_request(R"({"model": "m", "messages": [
      {"role": "user", "content": "u"},
      {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": 2}}},
                                           {"function": {"name": "g", "arguments": {}}}]},
      {"role": "tool", "tool_name": "f", "content": "1"},
      {"role": "tool", "tool_name": "g", "content": "2"}]})",
                                            OllamaApi::kChat);
  const auto messages = OrderedJson::parse(request.chat.messages_json);
  const auto& calls = messages[1]["tool_calls"];
  EXPECT_EQ(calls[0]["function"]["arguments"].dump(), R"({"z":1,"a":2})");
  EXPECT_EQ(calls[0]["id"].get<std::string>().size(), 9u) << "as Mistral's templates want it";
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);
  EXPECT_EQ(messages[2]["tool_call_id"], calls[0]["id"]);
  EXPECT_EQ(messages[3]["tool_call_id"], calls[1]["id"]);
}

TEST(OllamaRequest, PlainMessagesStayPlain) {
  const auto request = parse_ollama_request(
      R"({"model":"m","messages":[{"role":"user","content":"u","images":[],"tool_calls":null}]})",
      OllamaApi::kChat);
  EXPECT_TRUE(request.chat.messages_json.empty());
  EXPECT_EQ(request.chat.messages.front().content, "u");
}

}  // namespace
}  // namespace mlxs
