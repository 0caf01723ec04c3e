#include "serve/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "serve/error_response.h"
#include "serve/http1.h"
#include "serve/http2.h"
#include "serve/http_text.h"
#include "serve/tls.h"
#include "serve/websocket.h"

namespace mlxs {
namespace {

constexpr unsigned char kTlsHandshake = 0x16;  // the type of a client's first TLS record
constexpr std::size_t kReadSize = 4096;
constexpr std::size_t kTelling = 4;  // bytes of the preface that no other request begins with

bool begins_http2(const boost::beast::flat_buffer& bytes) {
  const auto data = bytes.data();
  const std::string_view begun(static_cast<const char*>(data.data()), std::min(data.size(), kTelling));
  return kHttp2Preface.starts_with(begun);
}

}  // namespace

Connection::Connection(StreamSocket socket, std::string peer, ServerContext& context)
    : transport_(
          std::make_shared<Transport>(std::move(socket), std::move(peer), context.options.send_buffer_bytes)),
      context_(context),
      deadline_(*transport_) {}

void Connection::drain() {
  net::post(transport_->get_executor(), [self = shared_from_this()] {
    self->draining_ = true;
    if (self->session_) {
      self->session_->drain();
    } else {
      self->transport_->close();
    }
  });
}

void Connection::cancel() {
  net::post(transport_->get_executor(), [self = shared_from_this()] {
    self->draining_ = true;
    if (self->session_) {
      self->session_->cancel();
    } else {
      self->transport_->close();
    }
  });
}

net::awaitable<void> Connection::run() {
  if (context_.tls) {
    const bool secured = co_await secure();
    if (!secured) co_return;
  }
  const bool begun = co_await read_beginning();
  if (!begun || draining_ || context_.draining) {
    co_await transport_->finish(false);
    co_return;
  }
  if (transport_->application_protocol() == "h2" || begins_http2(beginning_)) {
    session_ = std::make_shared<Http2Session>(transport_, context_, std::move(beginning_));
    co_await session_->run();
    co_return;
  }
  const auto http1 = std::make_shared<Http1Session>(transport_, context_, std::move(beginning_));
  session_ = http1;
  co_await session_->run();
  std::optional<HttpRequest> upgrade = http1->take_upgrade();
  if (!upgrade) co_return;
  session_ = std::make_shared<WebSocketSession>(transport_, context_, std::move(*upgrade));
  if (draining_) session_->drain();
  co_await session_->run();
}

net::awaitable<bool> Connection::secure() {
  deadline_.arm(context_.options.idle_timeout_ms);
  const std::optional<unsigned char> first = co_await transport_->peek();
  deadline_.disarm();
  if (!first) co_return false;
  if (*first != kTlsHandshake) {
    const HttpResponse response = error_response(
        Error(ErrorCode::kInvalidArgument, "this port speaks TLS", "use https:// instead of http://"));
    co_await send_last_response(*transport_, response);
    co_return false;
  }
  deadline_.arm(context_.options.request_timeout_ms);
  const boost::system::error_code error = co_await transport_->accept_tls(context_.tls->current());
  deadline_.disarm();
  if (error) log::debug("TLS with {} failed: {}", transport_->peer(), error.message());
  co_return !error;
}

net::awaitable<bool> Connection::read_beginning() {
  deadline_.arm(context_.options.idle_timeout_ms);
  bool clear = false, failed = false;
  while (!clear && !failed) {
    const auto [error, size] = co_await transport_->async_read_some(beginning_.prepare(kReadSize), kAsTuple);
    beginning_.commit(size);
    failed = static_cast<bool>(error);
    clear = beginning_.size() >= kTelling || !begins_http2(beginning_);
  }
  deadline_.disarm();
  co_return !failed;
}

net::awaitable<void> Connection::turn_away() {
  const Error error(
      ErrorCode::kUnavailable,
      fmt::format("{} connections are open, the most allowed", context_.options.max_connections),
      "try again later");
  HttpResponse response = error_response(error);
  response.headers.emplace_back("retry-after", "1");
  if (!context_.tls) co_await send_last_response(*transport_, response);  // a handshake is not worth it
}

}  // namespace mlxs
