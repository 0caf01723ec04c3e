// Routes, targets, heads, ids and the error table: what needs no socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "serve/error_response.h"
#include "serve/http_text.h"
#include "serve/ids.h"
#include "serve/router.h"

namespace mlxs {
namespace {

using testing::HasSubstr;

HttpResponse answer(const Router& router, const std::string& method, const std::string& path) {
  HttpRequest request;
  request.method = method;
  request.path = path;
  return std::get<HttpResponse>(router.dispatch(request));
}

Router sample_router() {
  Router router;
  const auto says = [](std::string text) {
    return [text](const HttpRequest&, std::string_view rest) -> Reply {
      return HttpResponse{.body = text + std::string(rest)};
    };
  };
  router.add("GET", "/a", says("get "));
  router.add("POST", "/a", says("post "));
  router.add("GET", "/a/{id}", says("one "));
  return router;
}

TEST(Router, FindsByMethodAndPath) {
  const Router router = sample_router();
  EXPECT_EQ(answer(router, "GET", "/a").body, "get ");
  EXPECT_EQ(answer(router, "HEAD", "/a").body, "get ");
  EXPECT_EQ(answer(router, "POST", "/a").body, "post ");
  EXPECT_EQ(answer(router, "GET", "/a/org/model").body, "one org/model");
}

TEST(Router, TellsAnUnknownPathFromAWrongMethod) {
  const Router router = sample_router();
  for (const char* path : {"/", "/b", "/a/", "/aa", ""}) {
    const HttpResponse response = answer(router, "GET", path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_THAT(response.body, HasSubstr("POST /a"));
  }
  const HttpResponse wrong = answer(router, "DELETE", "/a");
  EXPECT_EQ(wrong.status, 405);
  ASSERT_EQ(wrong.headers.size(), 1u);
  EXPECT_EQ(wrong.headers[0].first, "allow");
  EXPECT_EQ(wrong.headers[0].second, "GET, HEAD, POST");
}

TEST(Target, IsDecodedWithoutItsQuery) {
  EXPECT_EQ(decode_path("/v1/models"), "/v1/models");
  EXPECT_EQ(decode_path("/v1/models?x=1#y"), "/v1/models");
  EXPECT_EQ(decode_path("/v1/models/org%2Fname%20x"), "/v1/models/org/name x");
  EXPECT_EQ(decode_path("http://host:1/health"), "/health");
  EXPECT_EQ(decode_path("http://host"), "/");
  for (const char* bad : {"", "*", "host:80", "/%", "/%4", "/%zz", "/%-1"})
    EXPECT_FALSE(decode_path(bad)) << bad;
}

TEST(Head, SaysHowTheBodyEnds) {
  const std::string known =
      render_head({.status = 404, .content_type = "a/b", .request_id = "r", .length = 5});
  EXPECT_TRUE(known.starts_with("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_TRUE(known.ends_with("\r\n\r\n"));
  EXPECT_THAT(known, HasSubstr("content-length: 5\r\n"));
  EXPECT_THAT(known, HasSubstr("content-type: a/b\r\n"));
  EXPECT_THAT(known, HasSubstr("x-request-id: r\r\n"));
  EXPECT_THAT(known, HasSubstr("date: "));
  EXPECT_EQ(known.find("connection:"), std::string::npos);

  EXPECT_THAT(render_head({}), HasSubstr("transfer-encoding: chunked\r\n"));
  const std::string old = render_head({.version = 10, .keep_alive = false});
  EXPECT_EQ(old.find("transfer-encoding"), std::string::npos);
  EXPECT_THAT(old, HasSubstr("connection: close\r\n"));
  EXPECT_THAT(render_head({.version = 10}), HasSubstr("connection: keep-alive\r\n"));
}

TEST(Head, DateIsOfTheOldKind) {
  EXPECT_EQ(http_date(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
}

TEST(Head, ValuesCannotBreakOut) {
  EXPECT_EQ(header_value("a\r\nset-cookie: x\xFF"), "a??set-cookie: x?");
  EXPECT_EQ(header_value(std::string(5000, 'a')).size(), 1024u);
}

TEST(Ids, AreDistinctAndClientsOnesAreCheckedFirst) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random_id("x-"));
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(seen.begin()->size(), 26u);
  EXPECT_EQ(usable_request_id("abc-1"), "abc-1");
  for (const std::string bad : {"", "a b", "a\r\nb", "\xC3\xA9"}) EXPECT_FALSE(usable_request_id(bad));
  EXPECT_FALSE(usable_request_id(std::string(129, 'a')));
}

TEST(Errors, EveryCodeHasAStatusThatFits) {
  EXPECT_EQ(http_status(ErrorCode::kInvalidArgument), 400);
  EXPECT_EQ(http_status(ErrorCode::kInvalidJson), 400);
  EXPECT_EQ(http_status(ErrorCode::kContextOverflow), 400);
  EXPECT_EQ(http_status(ErrorCode::kUnauthorized), 401);
  EXPECT_EQ(http_status(ErrorCode::kNotFound), 404);
  EXPECT_EQ(http_status(ErrorCode::kModelNotFound), 404);
  EXPECT_EQ(http_status(ErrorCode::kMethodNotAllowed), 405);
  EXPECT_EQ(http_status(ErrorCode::kTooLarge), 413);
  EXPECT_EQ(http_status(ErrorCode::kOverloaded), 429);
  EXPECT_EQ(http_status(ErrorCode::kInternal), 500);
  EXPECT_EQ(http_status(ErrorCode::kUnavailable), 503);
}

TEST(Errors, AreOpenAisObject) {
  const auto parsed = nlohmann::json::parse(
      error_json(Error(ErrorCode::kContextOverflow, "9 \"tokens\"", "send less", "messages")));
  const nlohmann::json expected{{"error",
                                 {{"message", "9 \"tokens\" (send less)"},
                                  {"type", "invalid_request_error"},
                                  {"param", "messages"},
                                  {"code", "context_length_exceeded"}}}};
  EXPECT_EQ(parsed, expected);
  EXPECT_EQ(nlohmann::json::parse(error_json(Error(ErrorCode::kModelNotFound, "x")))["error"]["code"],
            "model_not_found");
  EXPECT_EQ(nlohmann::json::parse(error_json(Error(ErrorCode::kModelNotFound, "x")))["error"]["param"],
            nullptr);
}

TEST(Query, IsWhatFollowsTheMark) {
  EXPECT_EQ(query_of("/a?x=1&y=%20#end"), "x=1&y=%20");
  EXPECT_EQ(query_of("http://host/a?b?c"), "b?c");
  for (const char* none : {"/a", "/a?", "/a#b?c", ""}) EXPECT_EQ(query_of(none), "") << none;
}

TEST(Headers, TheFirstOfANameCounts) {
  HttpRequest request;
  request.headers = {{"accept", "a"}, {"x-tag", "1"}, {"x-tag", "2"}};
  EXPECT_EQ(request.header("x-tag"), "1");
  EXPECT_EQ(request.header("x-other"), "");
}

}  // namespace
}  // namespace mlxs
