// With API keys, a request counts as its key's tenant, in every dialect and whatever its body says.
#include <gtest/gtest.h>

#include <future>
#include <string>

#include "serve/gate.h"
#include "serve/server.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "unit/serve/raw_client.h"

namespace mlxs {
namespace {

// The user of the request that finished.
class UserObserver final : public EngineObserver {
 public:
  void on_first_token(std::string_view, double) override {}
  void on_inter_token(std::string_view, double) override {}
  void on_finished(const RequestRecord& record) override { user_.set_value(std::string(record.user)); }
  void on_step(const StepRecord&) override {}

  std::future<std::string> user() { return user_.get_future(); }

 private:
  std::promise<std::string> user_;
};

// The user that one request is counted as; "-" if it was refused.
std::string counted_as(bool with_keys, const std::string& path, const std::string& body) {
  const test::TempDir folder;
  const auto observer = std::make_shared<UserObserver>();
  std::future<std::string> user = observer->user();
  EngineOptions engine_options;
  engine_options.threads = 1;
  engine_options.cache_dir = folder.path().string();
  engine_options.observer = observer;
  const auto engine = Engine::create(engine_options);
  engine->load_model(
      {.model = test::TinyModel{}.write(folder.path()).string(), .served_name = "tiny", .context_length = 0});

  ServerOptions options;
  options.port = 0;
  if (with_keys) options.keys.add("alices-key", {.tenant = "alice"});
  Server server(options, *engine, [] { return std::string(); });
  server.start();
  test::RawClient client(server.port());
  const auto response = client.post(path, body, "authorization: Bearer alices-key\r\n");
  EXPECT_EQ(response.status, 200) << response.body;
  return response.status == 200 ? user.get() : "-";
}

constexpr const char* kOpenAi = R"({"prompt":"hello","max_tokens":2,"user":"bob"})";
constexpr const char* kAnthropic =
    R"({"model":"tiny","messages":[{"role":"user","content":"hello"}],"max_tokens":2,"metadata":{"user_id":"bob"}})";

TEST(Tenant, IsTheKeysAndNotTheBodys) {
  EXPECT_EQ(counted_as(true, "/v1/completions", kOpenAi), "alice");
  EXPECT_EQ(counted_as(true, "/v1/messages", kAnthropic), "alice");
}

TEST(Tenant, IsTheBodysWhereNobodyHasAKey) {
  EXPECT_EQ(counted_as(false, "/v1/completions", kOpenAi), "bob");
  EXPECT_EQ(counted_as(false, "/v1/messages", kAnthropic), "bob");
}

TEST(CacheScope, IsAnotherForEveryTenantAndSalt) {
  const Caller a{.tenant = "a"}, ab{.tenant = "ab"}, one_colon{.tenant = "1:"};
  EXPECT_EQ(cache_scope(&a, false, "s"), cache_scope(&a, false, "s"));
  EXPECT_NE(cache_scope(&a, false, "s"), cache_scope(&a, false, ""));
  EXPECT_NE(cache_scope(&a, false, "bs"), cache_scope(&ab, false, "s")) << "a salt that ends another's name";
  EXPECT_NE(cache_scope(&one_colon, false, ""), cache_scope(&a, false, ":")) << "nor a name that looks so";
  EXPECT_EQ(cache_scope(&a, true, "s"), cache_scope(&ab, true, "s"));
  EXPECT_EQ(cache_scope(nullptr, false, "s"), "s");
}

}  // namespace
}  // namespace mlxs
