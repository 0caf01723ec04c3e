// The bytes of one connection: TCP or a Unix socket, or TLS over it, behind what Asio and Beast call an
// AsyncStream. Used on its executor's thread only; at most one read and one write at a time. Closing it ends
// both with an error.
#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "serve/asio.h"

namespace mlxs {

class Transport {
 public:
  using executor_type = StreamSocket::executor_type;
  using error_code = boost::system::error_code;

  Transport(StreamSocket socket, std::string peer, int send_buffer_bytes);
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  const std::string& peer() const { return peer_; }  // the client's address, without its port; "unix"
  bool secure() const { return tls_.has_value(); }

  // The server's side of the handshake; what it takes from `context` is this connection's own.
  net::awaitable<error_code> accept_tls(std::shared_ptr<net::ssl::context> context);
  std::string_view application_protocol() const;  // ALPN: "h2", "http/1.1", or empty

  // The first byte that the client sent, left where it is; nullopt: none ever comes.
  net::awaitable<std::optional<unsigned char>> peek();

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return net::async_initiate<Token, void(error_code, std::size_t)>(
        [this](auto handler, const Buffers& into) {
          if (tls_) {
            tls_->async_read_some(into, std::move(handler));
          } else {
            socket_.async_read_some(into, std::move(handler));
          }
        },
        token, buffers);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return net::async_initiate<Token, void(error_code, std::size_t)>(
        [this](auto handler, const Buffers& from) {
          if (tls_) {
            tls_->async_write_some(from, std::move(handler));
          } else {
            socket_.async_write_some(from, std::move(handler));
          }
        },
        token, buffers);
  }
  // Writes what the kernel takes at once: usually everything. Over TLS nothing: records must not be cut.
  template <class Buffers>
  std::size_t write_now(const Buffers& buffers, error_code& error) {
    if (tls_) return 0;
    const std::size_t written = socket_.write_some(buffers, error);
    if (error == net::error::would_block) error = {};
    return written;
  }

  void cancel();  // what is being read or written ends with operation_aborted
  void close();
  bool is_open() const { return socket_.is_open(); }

  // Says goodbye, for at most a moment. linger: the client may still be sending what nobody will read; it is
  // read for a while, for closing over unread bytes would make the kernel take back what is on its way.
  net::awaitable<void> finish(bool linger);

 private:
  StreamSocket socket_;
  std::shared_ptr<net::ssl::context> context_;
  std::optional<net::ssl::stream<StreamSocket&>> tls_;
  std::string peer_;
};

}  // namespace mlxs
