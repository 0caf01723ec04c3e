#include "fleet/redis_client.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <charconv>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void bad_url(std::string_view url, std::string_view why) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("registry URL '{}': {}", url, why),
              "write redis://HOST[:PORT][/DATABASE], for example redis://127.0.0.1:6379");
}

int parse_number(std::string_view text, int least, int most, std::string_view url, std::string_view what) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    bad_url(url, fmt::format("'{}' is no {} ({} … {})", text, what, least, most));
  }
  return value;
}

std::string percent_decode(std::string_view text, std::string_view url) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    int byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2)
      bad_url(url, "a '%' without two hex digits");
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};

RedisReply convert(const redisReply& reply) {
  RedisReply out;
  switch (reply.type) {
    case REDIS_REPLY_NIL:
      out.nil = true;
      break;
    case REDIS_REPLY_INTEGER:
      out.integer = reply.integer;
      break;
    case REDIS_REPLY_ARRAY:
      for (std::size_t i = 0; i < reply.elements; ++i) out.items.push_back(convert(*reply.element[i]));
      break;
    default:
      out.text.assign(reply.str, static_cast<std::size_t>(reply.len));
  }
  return out;
}

}  // namespace

RedisUrl RedisUrl::parse(std::string_view text) {
  constexpr std::string_view kScheme = "redis://";
  // For messages: without the login, which may hold a password.
  const auto login_end = text.rfind('@');
  const std::string url =
      login_end == std::string_view::npos ? std::string(text) : fmt::format("…{}", text.substr(login_end));
  if (!text.starts_with(kScheme)) bad_url(url, "it does not start with redis://");
  std::string_view rest = text.substr(kScheme.size());
  RedisUrl out;
  if (const auto slash = rest.find('/'); slash != std::string_view::npos) {
    const std::string_view database = rest.substr(slash + 1);
    if (!database.empty()) out.database = parse_number(database, 0, 1 << 16, url, "database");
    rest = rest.substr(0, slash);
  }
  if (const auto at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = rest.substr(0, at);
    rest = rest.substr(at + 1);
    const auto colon = login.find(':');
    if (colon == std::string_view::npos) bad_url(url, "a login is written USER:PASSWORD@ or :PASSWORD@");
    out.user = percent_decode(login.substr(0, colon), url);
    out.password = percent_decode(login.substr(colon + 1), url);
  }
  if (rest.starts_with('[')) {  // an IPv6 address
    const auto close = rest.find(']');
    if (close == std::string_view::npos) bad_url(url, "'[' without ']'");
    out.host = rest.substr(1, close - 1);
    rest = rest.substr(close + 1);
  } else {
    const auto colon = rest.find(':');
    out.host = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon);
  }
  if (out.host.empty()) bad_url(url, "it names no host");
  if (!rest.empty()) {
    if (rest.front() != ':') bad_url(url, fmt::format("unexpected '{}'", rest));
    out.port = parse_number(rest.substr(1), 1, 65535, url, "port");
  }
  return out;
}

std::string RedisUrl::address() const { return fmt::format("{}:{}", host, port); }

struct RedisClient::Connection {
  redisContext* context;
  explicit Connection(redisContext* made) : context(made) {}
  ~Connection() { redisFree(context); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
};

RedisClient::RedisClient(RedisUrl url, std::chrono::milliseconds timeout)
    : url_(std::move(url)), timeout_(timeout) {}
RedisClient::~RedisClient() = default;

void RedisClient::connect() {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(timeout_).count();
  const timeval limit{static_cast<time_t>(micros / 1000000), static_cast<suseconds_t>(micros % 1000000)};
  redisContext* context = redisConnectWithTimeout(url_.host.c_str(), url_.port, limit);
  if (context == nullptr) throw Error(ErrorCode::kOutOfMemory, "no memory for a Redis connection");
  connection_ = std::make_unique<Connection>(context);
  if (context->err != 0) {
    const std::string why = context->errstr;
    connection_.reset();
    throw Error(ErrorCode::kUnavailable,
                fmt::format("Redis at {} is not reachable: {}", url_.address(), why));
  }
  redisSetTimeout(context, limit);
  if (!url_.password.empty()) {
    if (url_.user.empty()) {
      send({"AUTH", url_.password});
    } else {
      send({"AUTH", url_.user, url_.password});
    }
  }
  if (url_.database != 0) send({"SELECT", std::to_string(url_.database)});
}

RedisReply RedisClient::command(const std::vector<std::string>& words) {
  if (!connection_) connect();
  return send(words);
}

RedisReply RedisClient::send(const std::vector<std::string>& words) {
  std::vector<const char*> pointers;
  std::vector<std::size_t> lengths;
  for (const std::string& word : words) {
    pointers.push_back(word.data());
    lengths.push_back(word.size());
  }
  redisContext* context = connection_->context;
  const std::unique_ptr<redisReply, FreeReply> reply(static_cast<redisReply*>(
      redisCommandArgv(context, static_cast<int>(words.size()), pointers.data(), lengths.data())));
  std::string why;
  if (!reply) {
    why = context->errstr;
  } else if (reply->type == REDIS_REPLY_ERROR) {
    why.assign(reply->str, static_cast<std::size_t>(reply->len));
  } else {
    return convert(*reply);
  }
  connection_.reset();  // after an error the stream's state is unknown
  throw Error(ErrorCode::kUnavailable,
              fmt::format("Redis at {} failed at {}: {}", url_.address(), words[0], why));
}

}  // namespace mlxs
