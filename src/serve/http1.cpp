#include "serve/http1.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "serve/error_response.h"
#include "serve/exchange_record.h"
#include "serve/http_text.h"
#include "serve/offload.h"
#include "serve/websocket.h"

namespace mlxs {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kReadAhead =
    64 << 10;  // bytes of early requests that are kept while an answer is on its way
constexpr std::size_t kReadSize = 4096;
constexpr int kRequestHeaderFieldsTooLarge = 431;
constexpr int kRequestTimeout = 408;

// The first line says that it is some HTTP.
bool names_http(const boost::beast::flat_buffer& bytes) {
  const auto data = bytes.data();
  const std::string_view text(static_cast<const char*>(data.data()), data.size());
  return text.substr(0, text.find('\n')).find(" HTTP/") != std::string_view::npos;
}

}  // namespace

net::awaitable<void> send_last_response(Transport& transport, const HttpResponse& response) {
  const std::string head = render_head({.status = response.status,
                                        .keep_alive = false,
                                        .content_type = response.content_type,
                                        .request_id = {},
                                        .length = response.body.size(),
                                        .headers = response.headers});
  error_code error;  // it fits into what the kernel holds, or the client goes without
  transport.write_now(std::array{net::buffer(head), net::buffer(response.body)}, error);
  co_await transport.finish(true);
}

Http1Session::Http1Session(std::shared_ptr<Transport> transport, ServerContext& context,
                           boost::beast::flat_buffer beginning)
    : transport_(std::move(transport)),
      context_(context),
      buffer_(std::move(beginning)),
      deadline_(*transport_),
      wakeup_(std::make_shared<Wakeup>(transport_->get_executor())) {}

Http1Session::~Http1Session() { wakeup_->close(); }

void Http1Session::drain() {
  draining_ = true;
  if (idle_) hang_up();
}

void Http1Session::cancel() {
  draining_ = cancelled_ = true;
  wakeup_->set();
  if (stalled_) {
    hang_up();
  } else if (!watching_) {
    transport_->cancel();  // still reading the request
  }
}

// ---------------------------------------------------------------- reading

// gcc 12 miscompiles some co_await inside conditions and arguments: here each stands in a statement of its
// own.
net::awaitable<void> Http1Session::run() {
  for (bool open = true; open;) {
    open = co_await wait_for_request();
    if (open) open = co_await serve_request();
  }
  if (!gone_ && !upgrade_) co_await transport_->finish(unread_ || buffer_.size() > 0);
}

net::awaitable<bool> Http1Session::wait_for_request() {
  if (gone_ || draining_ || context_.draining) co_return false;
  if (buffer_.size() > 0) co_return true;
  idle_ = true;
  deadline_.arm(context_.options.idle_timeout_ms);
  const auto [error, size] = co_await transport_->async_read_some(buffer_.prepare(kReadSize), kAsTuple);
  deadline_.disarm();
  idle_ = false;
  buffer_.commit(size);
  co_return !error;
}

net::awaitable<bool> Http1Session::serve_request() {
  Exchange exchange;
  const bool complete = co_await read_request(exchange);
  if (!complete) co_return false;
  if (asks_for_websocket(exchange.request)) {
    const bool goes_on = co_await allow_upgrade(exchange);
    co_return goes_on;
  }

  const bool quick = exchange.request.method != "POST";
  Prepared prepared;
  if (quick) {
    prepared = prepare_reply(context_, exchange.request, exchange.headers);
  } else {
    auto work = [this, &exchange] { return prepare_reply(context_, exchange.request, exchange.headers); };
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

// Checks who asks, as for any request; the rest of the handshake is the WebSocket's.
net::awaitable<bool> Http1Session::allow_upgrade(Exchange& exchange) {
  take_key_from_subprotocol(exchange.request);
  std::optional<HttpResponse> refusal = admit(context_, exchange.request);
  if (!refusal && buffer_.size() > 0) {
    refusal = error_response(Error(ErrorCode::kInvalidArgument, "something follows the WebSocket's handshake",
                                   "wait for its answer before the first message"));
  }
  if (refusal) {
    co_await send_response(exchange, *refusal);
    end(exchange);
    co_return exchange.keep_alive && !gone_;
  }
  upgrade_ = std::move(exchange.request);
  co_return false;
}

// The whole request, or false after an answer that ends the connection.
net::awaitable<bool> Http1Session::read_request(Exchange& exchange) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<std::uint32_t>(context_.options.max_header_bytes));
  parser.body_limit(context_.options.max_body_bytes);
  deadline_.arm(context_.options.request_timeout_ms);
  auto [error, size] = co_await http::async_read_header(*transport_, buffer_, parser, kAsTuple);
  const auto& message = parser.get();
  exchange.version = message.version() < 11 ? 10 : 11;
  exchange.request.method = std::string(message.method_string());
  for (const auto& field : message) {
    const auto name = field.name_string(), value = field.value();
    exchange.request.headers.emplace_back(lower_case({name.data(), name.size()}),
                                          std::string(value.data(), value.size()));
  }
  identify(context_, exchange.request);
  exchange.headers = common_headers(context_, exchange.request);
  exchange.request.peer = context_.proxies.client_of(transport_->peer(), exchange.request);
  if (!error && !parser.is_done()) {
    if (boost::beast::iequals(message[http::field::expect], "100-continue")) {
      co_await write_text("HTTP/1.1 100 Continue\r\n\r\n");
    }
    std::tie(error, size) = co_await http::async_read(*transport_, buffer_, parser, kAsTuple);
  }
  deadline_.disarm();
  if (error) {
    co_await refuse_request(exchange, error);
    if (exchange.status != 0) end(exchange);
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
    end(exchange);
    co_return exchange.keep_alive;
  }
  exchange.request.path = *path;
  exchange.request.query = query_of({target.data(), target.size()});
  exchange.request.body = std::move(parser.get().body());
  co_return true;
}

net::awaitable<void> Http1Session::refuse_request(Exchange& exchange, error_code error) {
  exchange.keep_alive = false;
  HttpResponse response;
  if (deadline_.expired()) {
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
  } else if (error == http::error::bad_version && !names_http(buffer_)) {
    unread_ = true;
    co_return;  // it would read an answer as something else
  } else {
    response = error_response(
        Error(ErrorCode::kInvalidArgument, fmt::format("this is not HTTP/1.1: {}", error.message())));
  }
  unread_ = true;
  co_await send_response(exchange, response);
}

net::awaitable<void> Http1Session::send_response(Exchange& exchange, const HttpResponse& response) {
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
  const Pieces pieces{net::buffer(head), net::buffer(body)};
  co_await write(pieces, context_.options.write_timeout_ms);
}

void Http1Session::end(const Exchange& exchange) {
  end_exchange(context_, exchange.request,
               {.at = std::chrono::steady_clock::now(),
                .status = exchange.status,
                .client_gone = gone_,
                .bytes = std::exchange(bytes_sent_, 0),
                .socket_wait_seconds = to_seconds(std::exchange(socket_wait_, {}))});
}

// ---------------------------------------------------------------- the socket

net::awaitable<void> Http1Session::write_text(std::string text) {
  const Pieces pieces{net::buffer(text)};
  co_await write(pieces, context_.options.write_timeout_ms);
}

net::awaitable<void> Http1Session::write(Pieces buffers, int patience_ms) {
  if (gone_) co_return;
  // Nearly always the kernel takes it all at once; only a slow reader costs a timer and a wait.
  error_code error;
  const std::size_t total = net::buffer_size(buffers);
  const std::size_t written = transport_->write_now(buffers, error);
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
      deadline_.arm(patience_ms);  // anew whenever the reader takes something
      const auto [failed, size] = co_await transport_->async_write_some(net::buffer(left), kAsTuple);
      left.remove_prefix(size);
      error = failed;
    }
    if (deadline_.expired()) context_.note_slow_reader(transport_->peer(), patience_ms);
    deadline_.disarm();
    stalled_ = false;
    socket_wait_ += std::chrono::steady_clock::now() - started;
  }
  bytes_sent_ += total;
  if (error) hang_up();
}

void Http1Session::watch() {
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
  transport_->async_read_some(buffer_.prepare(kReadSize),
                              net::bind_cancellation_slot(watch_cancel_.slot(), std::move(handler)));
}

net::awaitable<void> Http1Session::stop_watching() {
  watch_stops_ = true;
  watch_cancel_.emit(net::cancellation_type::terminal);
  while (watching_) co_await wakeup_->wait();
}

void Http1Session::hang_up() {
  gone_ = true;
  transport_->close();
}

}  // namespace mlxs
