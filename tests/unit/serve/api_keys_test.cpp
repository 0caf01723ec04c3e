// API keys: the file's form, the headers, and who gets through.
#include "serve/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "serve/gate.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

using testing::HasSubstr;

// SHA-256("abc") and of the 448-bit message, from FIPS 180-2.
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kLong = "248D6A61D20638B8E5C026930C3E6039A33CE45964FF2167F6ECEDD419DB06C1";
constexpr const char* kLongKey = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";

ApiKeys from_text(const std::string& text) {
  const test::TempDir folder;
  const std::string path = (folder.path() / "keys").string();
  std::ofstream(path) << text;
  ApiKeys keys;
  keys.add_file(path);
  return keys;
}

HttpRequest with_header(std::string name, std::string value) {
  HttpRequest request;
  request.method = "GET";
  request.path = "/x";
  request.headers.emplace_back(std::move(name), std::move(value));
  return request;
}

int status(const ApiKeys& keys, Access access, const HttpRequest& request) {
  const auto admitted = admit_caller(keys, access, request);
  const auto* refusal = std::get_if<HttpResponse>(&admitted);
  return refusal != nullptr ? refusal->status : 200;
}

TEST(ApiKeys, AFileNamesTenantsAndRoles) {
  const ApiKeys keys =
      from_text("# who\n\n" + std::string(kAbc) + " alice # first\r\n" + kLong + "\tops admin\n");
  ASSERT_NE(keys.find("abc"), nullptr);
  EXPECT_EQ(keys.find("abc")->tenant, "alice");
  EXPECT_EQ(keys.find("abc")->role, Role::kUser);
  ASSERT_NE(keys.find(kLongKey), nullptr);
  EXPECT_EQ(keys.find(kLongKey)->tenant, "ops");
  EXPECT_EQ(keys.find(kLongKey)->role, Role::kAdmin);
  for (const char* wrong : {"", "ab", "abcd", "ABC", kAbc}) EXPECT_EQ(keys.find(wrong), nullptr) << wrong;
}

TEST(ApiKeys, AKeyMayHaveLimitsOfItsOwn) {
  const ApiKeys keys = from_text(std::string(kAbc) + " alice rpm=60 tpm=0\n" + kLong + " bob\n");
  EXPECT_EQ(keys.find("abc")->requests_per_minute, 60);
  EXPECT_EQ(keys.find("abc")->tokens_per_minute, 0);
  EXPECT_EQ(keys.find(kLongKey)->requests_per_minute, std::nullopt);
  EXPECT_EQ(keys.find("abc")->key_id, std::string(kAbc).substr(0, 16));
}

TEST(ApiKeys, ARunningServersKeysAreExchangedButNeverTakenAway) {
  CurrentKeys keys(from_text(std::string(kAbc) + " alice\n"));
  const Caller* alice = keys.get().find("abc");
  keys.replace(from_text(std::string(kLong) + " ops admin\n"));
  EXPECT_EQ(alice->tenant, "alice") << "a running request's caller stays";
  EXPECT_EQ(keys.get().find("abc"), nullptr);
  EXPECT_THROW(keys.replace(ApiKeys()), Error);
  EXPECT_NE(keys.get().find(kLongKey), nullptr);
}

TEST(ApiKeys, WrongLinesAreNamed) {
  const std::string hash = kAbc;
  for (const std::string& wrong :
       {hash.substr(1) + " a", "-" + hash.substr(1) + " a", hash, hash + " a root", hash + " a rpm=-1",
        hash + " a tpm=1x", hash + " a user more", hash + " " + std::string(129, 't')}) {
    try {
      from_text("# one\n" + wrong + "\n");
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr("line 2"));
    }
  }
  EXPECT_THROW(from_text(""), Error);
  EXPECT_THROW(from_text(hash + " a\n" + hash + " b\n"), Error);
  EXPECT_THROW(ApiKeys().add_file("/no/such/file"), Error);
  EXPECT_THROW(ApiKeys().add("", {}), Error);
  EXPECT_THROW(ApiKeys().add(std::string(513, 'k'), {}), Error);
}

TEST(ApiKeys, ComeInEitherHeader) {
  EXPECT_EQ(presented_key(with_header("authorization", "Bearer k-1")), "k-1");
  EXPECT_EQ(presented_key(with_header("authorization", "bearer   k-1")), "k-1");
  EXPECT_EQ(presented_key(with_header("x-api-key", "k-1")), "k-1");
  for (const char* none : {"", "Bearer", "Bearer ", "Bearer   ", "Basic k-1", "k-1"}) {
    EXPECT_EQ(presented_key(with_header("authorization", none)), "") << none;
  }
}

TEST(Gate, AsksForTheKeyThatTheRouteNeeds) {
  ApiKeys keys;
  keys.add("u", {.tenant = "alice"});
  keys.add("a", {.tenant = "ops", .role = Role::kAdmin});
  const HttpRequest nobody, user = with_header("x-api-key", "u"), admin = with_header("x-api-key", "a"),
                            wrong = with_header("x-api-key", "w");
  for (const HttpRequest& request : {nobody, user, admin, wrong}) {
    EXPECT_EQ(status(keys, Access::kOpen, request), 200);
    EXPECT_EQ(status(ApiKeys(), Access::kAdmin, request), 200);  // a server without keys
  }
  for (const Access access : {Access::kUser, Access::kAdmin}) {
    EXPECT_EQ(status(keys, access, nobody), 401);
    EXPECT_EQ(status(keys, access, wrong), 401);
    EXPECT_EQ(status(keys, access, admin), 200);
  }
  EXPECT_EQ(status(keys, Access::kUser, user), 200);
  EXPECT_EQ(status(keys, Access::kAdmin, user), 403);
}

}  // namespace
}  // namespace mlxs
