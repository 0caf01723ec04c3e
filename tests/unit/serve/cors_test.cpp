// Who may ask from a page, and what pages are told.
#include "serve/cors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mlxs {
namespace {

using testing::Contains;
using testing::Each;
using testing::Field;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;
using Headers = std::vector<std::pair<std::string, std::string>>;

HttpRequest from_page(std::string origin, std::string method = "POST", Headers more = {}) {
  HttpRequest request;
  request.method = std::move(method);
  request.headers = {{"host", "localhost:8000"}, {"origin", std::move(origin)}};
  request.headers.insert(request.headers.end(), more.begin(), more.end());
  return request;
}

HttpRequest preflight(std::string origin, Headers more = {}) {
  more.emplace_back("access-control-request-method", "POST");
  return from_page(std::move(origin), "OPTIONS", std::move(more));
}

TEST(Cors, WithoutOriginsPagesElsewhereAreKeptOut) {
  const CorsPolicy policy;
  for (const char* foreign : {"https://evil.example", "http://localhost:3000", "null", "http://localhost"}) {
    const auto refused = policy.answer(from_page(foreign), false);
    ASSERT_TRUE(refused) << foreign;
    EXPECT_EQ(refused->status, 403);
    EXPECT_EQ(policy.answer(preflight(foreign), true)->status, 403);
    EXPECT_FALSE(policy.answer(from_page(foreign), true)) << "the key decides";
    EXPECT_THAT(policy.headers(from_page(foreign)), IsEmpty());
  }
}

TEST(Cors, TheServersOwnPageAndProgramsPass) {
  const CorsPolicy policy;
  EXPECT_FALSE(policy.answer(HttpRequest{.method = "POST"}, false));
  EXPECT_FALSE(policy.answer(from_page("http://localhost:8000"), false));
  EXPECT_FALSE(
      policy.answer(from_page("https://behind.proxy", "POST", {{"sec-fetch-site", "same-origin"}}), false));
  EXPECT_TRUE(
      policy.answer(from_page("https://behind.proxy", "POST", {{"sec-fetch-site", "same-site"}}), false));
}

TEST(Cors, AListedPageIsToldWhatItMaySend) {
  const CorsPolicy policy({"https://Chat.Example", "http://localhost:3000"});
  const auto answer = policy.answer(
      preflight("https://chat.example", {{"access-control-request-headers", "authorization,x-a"},
                                         {"access-control-request-private-network", "true"}}),
      true);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 204);
  EXPECT_THAT(answer->headers, Contains(Pair("access-control-allow-headers", "authorization,x-a")));
  EXPECT_THAT(answer->headers, Contains(Pair("access-control-allow-private-network", "true")));
  EXPECT_THAT(policy.headers(preflight("https://chat.example")),
              Contains(Pair("access-control-allow-origin", "https://chat.example")));
  EXPECT_FALSE(policy.answer(from_page("http://localhost:3000"), false));
  EXPECT_EQ(policy.headers(from_page("https://other.example")), (Headers{{"vary", "origin"}}));
  EXPECT_EQ(policy.headers(HttpRequest{}), (Headers{{"vary", "origin"}})) << "caches must not mix them up";
}

TEST(Cors, AStarIsEveryPage) {
  const CorsPolicy policy({"*"});
  EXPECT_FALSE(policy.answer(from_page("null"), false));
  EXPECT_THAT(policy.headers(from_page("null")), Contains(Pair("access-control-allow-origin", "*")));
  EXPECT_THAT(policy.headers(HttpRequest{}), IsEmpty());
}

TEST(Cors, WhatIsNoOriginIsRefusedByName) {
  for (const char* bad : {"", "chat.example", "https://", "https://a/b", "https://*.example", "://a", "null",
                          "https://user@a"}) {
    try {
      CorsPolicy({bad});
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.field(), "cors_origin");
      EXPECT_THAT(error.what(), StartsWith("'" + std::string(bad) + "'"));
    }
  }
}

TEST(Cors, AnOriginCannotWriteHeaders) {
  const CorsPolicy policy({"*"});
  const auto answer = policy.answer(
      preflight("https://a", {{"access-control-request-headers", "a\r\nset-cookie: b"}}), false);
  EXPECT_THAT(answer->headers, Each(Field(&std::pair<std::string, std::string>::second,
                                          testing::Not(testing::HasSubstr("\n")))));
}

}  // namespace
}  // namespace mlxs
