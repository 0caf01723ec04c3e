// Whose request it is, where proxies stand in between and where somebody pretends so.
#include "serve/client_address.h"

#include <gtest/gtest.h>

namespace mlxs {
namespace {

std::string client(const TrustedProxies& proxies, const std::string& peer,
                   std::vector<std::pair<std::string, std::string>> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return proxies.client_of(peer, request);
}

TEST(TrustedProxies, StrangersHeadersCountForNothing) {
  EXPECT_EQ(client(TrustedProxies({}), "192.0.2.1", {{"x-forwarded-for", "10.0.0.1"}}), "192.0.2.1");
  EXPECT_EQ(client(TrustedProxies({"10.0.0.0/8"}), "192.0.2.1", {{"forwarded", "for=10.0.0.1"}}),
            "192.0.2.1");
  EXPECT_EQ(client(TrustedProxies({"10.0.0.0/8"}), "unix", {{"x-forwarded-for", "10.0.0.1"}}), "unix");
}

TEST(TrustedProxies, TheFirstFromTheRightThatIsNoProxy) {
  const TrustedProxies proxies({"10.0.0.0/8", "unix"});
  // The client wrote "1.1.1.1" itself: two proxies of ours added what they saw.
  EXPECT_EQ(client(proxies, "10.0.0.9", {{"x-forwarded-for", "1.1.1.1, 198.51.100.7, 10.1.2.3"}}),
            "198.51.100.7");
  EXPECT_EQ(
      client(proxies, "10.0.0.9", {{"x-forwarded-for", "1.1.1.1"}, {"x-forwarded-for", "198.51.100.7"}}),
      "198.51.100.7");
  EXPECT_EQ(client(proxies, "unix", {{"x-forwarded-for", "198.51.100.7:4711"}}), "198.51.100.7");
  EXPECT_EQ(client(proxies, "10.0.0.9", {{"x-forwarded-for", "10.0.0.1, 10.0.0.2"}}), "10.0.0.1");
  EXPECT_EQ(client(proxies, "10.0.0.9", {}), "10.0.0.9");
}

TEST(TrustedProxies, ForwardedAsTheStandardHasIt) {
  const TrustedProxies proxies({"127.0.0.1", "::1", "2001:db8::/32"});
  EXPECT_EQ(
      client(proxies, "127.0.0.1",
             {{"forwarded", R"(for=192.0.2.60;proto=http;by=203.0.113.43, For="[2001:db8:cafe::17]:4711")"},
              {"x-forwarded-for", "9.9.9.9"}}),
      "192.0.2.60");
  EXPECT_EQ(client(proxies, "::1", {{"forwarded", "for=unknown"}}), "::1");
  EXPECT_EQ(client(proxies, "::ffff:127.0.0.1", {{"forwarded", "by=x; for=192.0.2.9"}}), "192.0.2.9");
  EXPECT_EQ(client(proxies, "127.0.0.1", {{"forwarded", ";;,,"}}), "127.0.0.1");
}

TEST(TrustedProxies, NetworksEndAtTheirBits) {
  const TrustedProxies proxies({"192.0.2.128/25"});
  EXPECT_EQ(client(proxies, "192.0.2.127", {{"x-forwarded-for", "8.8.8.8"}}), "192.0.2.127");
  EXPECT_EQ(client(proxies, "192.0.2.128", {{"x-forwarded-for", "8.8.8.8"}}), "8.8.8.8");
  for (const char* wrong : {"", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/", "10.0.0.0/8x"}) {
    EXPECT_THROW(TrustedProxies({wrong}), Error) << wrong;
  }
}

}  // namespace
}  // namespace mlxs
