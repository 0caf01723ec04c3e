#include "serve/transport.h"

#include "serve/deadline.h"

namespace mlxs {
namespace {

constexpr int kLingerMs = 2000;  // for a client to read the last response while it still sends
constexpr int kGoodbyeMs = 200;  // for the end of TLS to go out and come back
constexpr std::size_t kDiscard = 16 << 10;

}  // namespace

Transport::Transport(StreamSocket socket, std::string peer, int send_buffer_bytes)
    : socket_(std::move(socket)), peer_(std::move(peer)) {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);  // a Unix socket has no such thing
  socket_.set_option(net::socket_base::send_buffer_size(send_buffer_bytes), ignored);
  socket_.non_blocking(true, ignored);  // write_now() tries, and does not wait
}

net::awaitable<Transport::error_code> Transport::accept_tls(std::shared_ptr<net::ssl::context> context) {
  context_ = std::move(context);
  tls_.emplace(socket_, *context_);
  const auto [error] = co_await tls_->async_handshake(net::ssl::stream_base::server, kAsTuple);
  co_return error;
}

std::string_view Transport::application_protocol() const {
  if (!tls_) return {};
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(const_cast<net::ssl::stream<StreamSocket&>&>(*tls_).native_handle(), &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

net::awaitable<std::optional<unsigned char>> Transport::peek() {
  const auto [failed] = co_await socket_.async_wait(net::socket_base::wait_read, kAsTuple);
  if (failed) co_return std::nullopt;
  unsigned char first = 0;
  error_code error;
  const std::size_t size = socket_.receive(net::buffer(&first, 1), net::socket_base::message_peek, error);
  if (error || size == 0) co_return std::nullopt;
  co_return first;
}

void Transport::cancel() {
  error_code ignored;
  socket_.cancel(ignored);
}

void Transport::close() {
  error_code ignored;
  socket_.close(ignored);
}

net::awaitable<void> Transport::finish(bool linger) {
  if (!socket_.is_open()) co_return;
  Deadline deadline(*this);
  if (tls_) {  // else a client cannot tell the end from a cut
    deadline.arm(kGoodbyeMs);
    co_await tls_->async_shutdown(kAsTuple);
    deadline.disarm();
  }
  error_code ignored;
  socket_.shutdown(net::socket_base::shutdown_send, ignored);
  if (linger) {
    std::string discarded(kDiscard, '\0');
    deadline.arm(kLingerMs);
    for (bool open = true; open && !deadline.expired();) {
      const auto [error, size] = co_await socket_.async_read_some(net::buffer(discarded), kAsTuple);
      open = !error;
    }
    deadline.disarm();
  }
  close();
}

}  // namespace mlxs
