// The gateway's messages: what is taken, what is refused, and how streams are cut into chunks.
#include "serve/websocket_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/websocket.h"

namespace mlxs::ws {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> cut(std::string_view type, const std::vector<std::string>& pieces) {
  std::vector<std::string> messages;
  ChunkCutter cutter("a\"b", type);
  for (const std::string& piece : pieces) {
    cutter.add(piece, [&](std::string message) { messages.push_back(std::move(message)); });
  }
  return messages;
}

TEST(WebSocketMessages, AreReadByTheirType) {
  const Message message = parse(R"({"type":"request","id":"7","path":"/v1/x","body":{"a":[1,2.5,"ü"]}})");
  const auto& request = std::get<Request>(message);
  EXPECT_EQ(request.id, "7");
  EXPECT_EQ(request.path, "/v1/x");
  EXPECT_EQ(json::parse(request.body), json::parse(R"({"a":[1,2.5,"ü"]})"));
  EXPECT_EQ(std::get<Cancel>(parse(R"({"type":"cancel","id":"7"})")).id, "7");
  EXPECT_TRUE(std::holds_alternative<Ping>(parse(R"({"type":"ping"})")));
}

TEST(WebSocketMessages, WhatIsNoneNamesItsField) {
  const std::string long_id(129, 'a');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"null", ""},
      {R"({"type":"ping"} x)", ""},
      {"{\"type\":\"\xff\"}", ""},
      {"{}", "type"},
      {R"({"type":"control"})", "type"},
      {R"({"type":"cancel"})", "id"},
      {R"({"type":"cancel","id":7})", "id"},
      {R"({"type":"cancel","id":")" + long_id + "\"}", "id"},
      {R"({"type":"request","id":"1","body":{}})", "path"},
      {R"({"type":"request","id":"1","path":"/"})", "body"},
      {R"({"type":"request","id":"1","path":"/","body":[]})", "body"},
      {std::string(100'000, '['), ""},
  };
  for (const auto& [text, field] : cases) {
    try {
      parse(text);
      FAIL() << text.substr(0, 80);
    } catch (const Error& error) {
      EXPECT_EQ(error.field(), field) << text.substr(0, 80);
      EXPECT_EQ(json::parse(ws::error(error))["type"], "error");
    }
  }
}

TEST(WebSocketMessages, EventsBecomeChunks) {
  EXPECT_THAT(
      cut(kEventStream, {"data: {\"n\":1}\n\nda", "ta: {\"n\":2}\n", "\n: comment\n\n", "data: [DONE]\n\n"}),
      ElementsAre(R"({"type":"chunk","id":"a\"b","data":{"n":1}})",
                  R"({"type":"chunk","id":"a\"b","data":{"n":2}})"));
  EXPECT_THAT(cut(kEventStream, {"event: stop\ndata: {}\n\n"}),
              ElementsAre(R"({"type":"chunk","id":"a\"b","event":"stop","data":{}})"));
  EXPECT_THAT(cut(kEventStream, {"data: {\"half\":"}), IsEmpty());
}

TEST(WebSocketMessages, LinesBecomeChunks) {
  EXPECT_THAT(cut(kJsonLines, {"{\"a\":1}\n{\"a\"", ":2}\n"}),
              ElementsAre(R"({"type":"chunk","id":"a\"b","data":{"a":1}})",
                          R"({"type":"chunk","id":"a\"b","data":{"a":2}})"));
}

TEST(WebSocketMessages, ResponsesCarryStatusHeadersAndBody) {
  const json told = json::parse(
      response("1", {.status = 429, .body = R"({"error":{}})", .headers = {{"retry-after", "2"}}}));
  EXPECT_EQ(
      told,
      json::parse(
          R"({"type":"response","id":"1","status":429,"headers":{"retry-after":"2"},"body":{"error":{}}})"));
  EXPECT_EQ(json::parse(response("1", {.body = "x\n", .content_type = "text/plain"}))["body"], "x\n");
}

TEST(WebSocketHandshake, AKeyMayComeAsASubprotocol) {
  HttpRequest request;
  request.headers = {{"sec-websocket-protocol", "mlxs , mlxs-key.secret"}};
  take_key_from_subprotocol(request);
  EXPECT_EQ(request.header("x-api-key"), "secret");
  HttpRequest without;
  without.headers = {{"sec-websocket-protocol", "mlxs,,"}};
  take_key_from_subprotocol(without);
  EXPECT_EQ(without.header("x-api-key"), "");
}

}  // namespace
}  // namespace mlxs::ws
