// One blocking connection to Redis or Valkey, made at the first command and again after a failure.
// Used by one thread at a time. Every failure throws kUnavailable naming the server; the next command tries
// anew.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

// redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]
struct RedisUrl {
  std::string host;
  int port = 6379;
  std::string user, password;  // percent-decoded
  int database = 0;

  static RedisUrl parse(std::string_view text);  // throws kInvalidArgument
  std::string address() const;                   // "host:port", without secrets, for messages
};

struct RedisReply {
  bool nil = false;
  std::string text;  // status, string
  std::int64_t integer = 0;
  std::vector<RedisReply> items;  // array
};

class RedisClient {
 public:
  explicit RedisClient(RedisUrl url, std::chrono::milliseconds timeout = std::chrono::seconds(2));
  ~RedisClient();
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  RedisReply command(const std::vector<std::string>& words);

 private:
  struct Connection;
  void connect();
  RedisReply send(const std::vector<std::string>& words);

  RedisUrl url_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace mlxs
