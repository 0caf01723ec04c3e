#include "serve/connection.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "base/log.h"
#include "serve/error_response.h"
#include "serve/http_text.h"
#include "serve/ids.h"
#include "serve/offload.h"

namespace mlxs {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kReadAhead =
    64 << 10;  // bytes of early requests that are kept while an answer is on its way
constexpr std::size_t kReadSize = 4096;
constexpr int kLingerMs = 2000;  // for a client to read the last response while it still sends
constexpr int kRequestHeaderFieldsTooLarge = 431;
constexpr int kRequestTimeout = 408;

}  // namespace

Connection::Connection(tcp::socket socket, ServerContext& context)
    : socket_(std::move(socket)),
      context_(context),
      timer_(socket_.get_executor()),
      wakeup_(std::make_shared<Wakeup>(socket_.get_executor())) {
  error_code ignored;
  const tcp::endpoint peer = socket_.remote_endpoint(ignored);
  if (!ignored) peer_ = peer.address().to_string();
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.set_option(net::socket_base::send_buffer_size(context_.options.send_buffer_bytes), ignored);
  socket_.non_blocking(true, ignored);  // write() tries before it waits
}

Connection::~Connection() { wakeup_->close(); }

void Connection::drain() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    self->draining_ = true;
    if (self->idle_) self->hang_up();
  });
}

void Connection::cancel() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    self->draining_ = self->cancelled_ = true;
    self->wakeup_->set();
    if (self->stalled_) {
      self->hang_up();
    } else if (!self->watching_) {
      error_code ignored;
      self->socket_.cancel(ignored);  // still reading the request
    }
  });
}

// ---------------------------------------------------------------- reading

// gcc 12 miscompiles some co_await inside conditions and arguments: here each stands in a statement of its
// own.
net::awaitable<void> Connection::run() {
  for (bool open = true; open;) {
    open = co_await wait_for_request();
    if (open) open = co_await serve_request();
  }
  co_await close();
}

net::awaitable<void> Connection::turn_away() {
  Exchange exchange;
  const Error error(
      ErrorCode::kUnavailable,
      fmt::format("{} connections are open, the most allowed", context_.options.max_connections),
      "try again later");
  HttpResponse response = error_response(error);
  response.headers.emplace_back("retry-after", "1");
  unread_ = true;
  co_await send_response(exchange, response);
  co_await close();
}

net::awaitable<bool> Connection::wait_for_request() {
  if (gone_ || draining_ || context_.draining) co_return false;
  if (buffer_.size() > 0) co_return true;
  idle_ = true;
  arm(context_.options.idle_timeout_ms);
  const auto [error, size] = co_await socket_.async_read_some(buffer_.prepare(kReadSize), kAsTuple);
  disarm();
  idle_ = false;
  buffer_.commit(size);
  co_return !error;
}

net::awaitable<bool> Connection::serve_request() {
  Exchange exchange;
  const bool complete = co_await read_request(exchange);
  if (!complete) co_return false;

  const bool quick = exchange.request.method != "POST";
  Prepared prepared;
  if (quick) {
    prepared = prepare_reply(context_, exchange.request);
  } else {
    auto work = [this, &exchange] { return prepare_reply(context_, exchange.request); };
    prepared = co_await offload(context_.workers, std::move(work));
  }
  if (auto* response = std::get_if<HttpResponse>(&prepared)) {
    co_await send_response(exchange, *response);
  } else {
    std::optional<LiveAnswer> answer(std::move(std::get<LiveAnswer>(prepared)));
    co_await send_answer(exchange, answer);
  }
  end(exchange);
  co_return exchange.keep_alive && !gone_;
}

// The whole request, or false after an answer that ends the connection.
net::awaitable<bool> Connection::read_request(Exchange& exchange) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<std::uint32_t>(context_.options.max_header_bytes));
  parser.body_limit(context_.options.max_body_bytes);
  timed_out_ = false;
  arm(context_.options.request_timeout_ms);
  auto [error, size] = co_await http::async_read_header(socket_, buffer_, parser, kAsTuple);
  const auto& message = parser.get();
  exchange.version = message.version() < 11 ? 10 : 11;
  exchange.request.method = std::string(message.method_string());
  const auto given_id = message["x-request-id"];
  exchange.request.id = usable_request_id({given_id.data(), given_id.size()}).value_or(random_id("req-"));
  exchange.request.peer = peer_;
  for (const auto& field : message) {
    const auto name = field.name_string(), value = field.value();
    exchange.request.headers.emplace_back(lower_case({name.data(), name.size()}),
                                          std::string(value.data(), value.size()));
  }
  exchange.headers = context_.cors.headers(exchange.request);
  if (!error && !parser.is_done()) {
    if (boost::beast::iequals(message[http::field::expect], "100-continue")) {
      co_await write_text("HTTP/1.1 100 Continue\r\n\r\n");
    }
    std::tie(error, size) = co_await http::async_read(socket_, buffer_, parser, kAsTuple);
  }
  disarm();
  if (error) {
    co_await refuse_request(exchange, error);
    co_return false;
  }
  exchange.keep_alive = parser.keep_alive();
  const auto target = message.target();
  const std::optional<std::string> path = decode_path({target.data(), target.size()});
  if (!path) {
    const Error bad(
        ErrorCode::kInvalidArgument,
        fmt::format("the request target '{}' is malformed", header_value({target.data(), target.size()})),
        "send a path that starts with /");
    co_await send_response(exchange, error_response(bad));
    co_return exchange.keep_alive;
  }
  exchange.request.path = *path;
  exchange.request.query = query_of({target.data(), target.size()});
  exchange.request.body = std::move(parser.get().body());
  co_return true;
}

net::awaitable<void> Connection::refuse_request(Exchange& exchange, error_code error) {
  exchange.keep_alive = false;
  HttpResponse response;
  if (timed_out_) {
    response = error_response(
        Error(ErrorCode::kTimeout,
              fmt::format("the request was not complete within {} ms", context_.options.request_timeout_ms)),
        kRequestTimeout);
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    response = error_response(Error(ErrorCode::kTooLarge, fmt::format("the header is larger than {} bytes",
                                                                      context_.options.max_header_bytes)),
                              kRequestHeaderFieldsTooLarge);
  } else if (error == http::error::body_limit) {
    response = error_response(
        Error(ErrorCode::kTooLarge,
              fmt::format("the body is larger than {} bytes", context_.options.max_body_bytes), "send less"));
  } else if (error == http::error::end_of_stream || error == http::error::partial_message ||
             error.category() != http::make_error_code(http::error::bad_method).category()) {
    co_return;  // the client went, or cancel() came
  } else {
    response = error_response(
        Error(ErrorCode::kInvalidArgument, fmt::format("this is not HTTP/1.1: {}", error.message())));
  }
  unread_ = true;
  co_await send_response(exchange, response);
}

net::awaitable<void> Connection::send_response(Exchange& exchange, const HttpResponse& response) {
  std::vector<std::pair<std::string, std::string>> headers = response.headers;
  headers.insert(headers.end(), exchange.headers.begin(), exchange.headers.end());
  const std::string head = render_head({.status = response.status,
                                        .version = exchange.version,
                                        .keep_alive = exchange.keep_alive,
                                        .content_type = response.content_type,
                                        .request_id = exchange.request.id,
                                        .length = response.body.size(),
                                        .headers = std::move(headers)});
  const std::string_view body = exchange.request.method == "HEAD" ? std::string_view() : response.body;
  exchange.status = response.status;
  co_await write(std::array{net::buffer(head), net::buffer(body)});
}

void Connection::end(const Exchange& exchange) {
  const auto now = std::chrono::steady_clock::now();
  end_exchange(exchange.request, {.at = now,
                                  .status = exchange.status,
                                  .client_gone = gone_,
                                  .bytes = std::exchange(bytes_sent_, 0),
                                  .socket_wait_seconds = to_seconds(std::exchange(socket_wait_, {}))});
  log::debug("{} {} {} → {} in {} ms", exchange.request.id, exchange.request.method, exchange.request.path,
             exchange.status, to_ms(now - exchange.request.received));
}

// ---------------------------------------------------------------- the socket

net::awaitable<void> Connection::write_text(std::string text) {
  co_await write(std::array{net::buffer(text)});
}

template <class Buffers>
net::awaitable<void> Connection::write(Buffers buffers) {
  if (gone_) co_return;
  // Nearly always the kernel takes it all at once; only a slow reader costs a timer and a wait.
  error_code error;
  const std::size_t total = net::buffer_size(buffers);
  const std::size_t written = socket_.write_some(buffers, error);
  if (error == net::error::would_block) error = {};
  if (!error && written < total) {
    std::string rest;
    rest.reserve(total - written);
    std::size_t skip = written;
    for (const net::const_buffer buffer : buffers) {
      const net::const_buffer left = buffer + skip;
      skip -= std::min(skip, buffer.size());
      rest.append(static_cast<const char*>(left.data()), left.size());
    }
    stalled_ = true;
    const auto started = std::chrono::steady_clock::now();
    for (std::string_view left = rest; !left.empty() && !error;) {
      arm(context_.options.write_timeout_ms);  // anew whenever the reader takes something
      const auto [failed, size] = co_await socket_.async_write_some(net::buffer(left), kAsTuple);
      left.remove_prefix(size);
      error = failed;
    }
    disarm();
    stalled_ = false;
    socket_wait_ += std::chrono::steady_clock::now() - started;
  }
  bytes_sent_ += total;
  if (error) hang_up();
}

void Connection::watch() {
  watching_ = true;
  auto handler = [self = shared_from_this()](error_code error, std::size_t size) {
    self->buffer_.commit(size);
    if (!error && !self->watch_stops_ && self->buffer_.size() < kReadAhead) {
      self->watch();
      return;
    }
    self->watching_ = false;
    if (error && error != net::error::operation_aborted) self->hang_up();
    self->wakeup_->set();
  };
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          net::bind_cancellation_slot(watch_cancel_.slot(), std::move(handler)));
}

net::awaitable<void> Connection::stop_watching() {
  watch_stops_ = true;
  watch_cancel_.emit(net::cancellation_type::terminal);
  while (watching_) co_await wakeup_->wait();
}

void Connection::hang_up() {
  gone_ = true;
  error_code ignored;
  socket_.close(ignored);
}

void Connection::arm(int timeout_ms) {
  timer_.expires_after(std::chrono::milliseconds(timeout_ms));
  timer_.async_wait([self = shared_from_this(), mine = ++armed_](error_code error) {
    if (error || mine != self->armed_) return;
    self->timed_out_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  });
}

void Connection::disarm() {
  ++armed_;
  timer_.cancel();
}

// What the client still sends is read for a while: closing over unread bytes would make the kernel take back
// the response that is on its way.
net::awaitable<void> Connection::close() {
  if (gone_) co_return;
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  if (unread_ || buffer_.size() > 0) {
    buffer_.clear();
    arm(kLingerMs);
    timed_out_ = false;
    for (bool open = true; open && !timed_out_;) {
      const auto [error, size] = co_await socket_.async_read_some(buffer_.prepare(kReadAhead), kAsTuple);
      open = !error;
    }
    disarm();
  }
  hang_up();
}

}  // namespace mlxs
