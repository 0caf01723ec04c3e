// The WebSocket gateway on one connection: any number of requests at once, each with an id of the client's,
// answered as messages (websocket_messages.h). Runs as coroutines on the connection's thread: one reads, one
// writes, one a request. A client that stops reading pauses its requests; one that goes ends them.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "serve/asio.h"
#include "serve/deadline.h"
#include "serve/http.h"
#include "serve/server_context.h"
#include "serve/session.h"
#include "serve/transport.h"
#include "serve/wakeup.h"
#include "serve/websocket_messages.h"

namespace mlxs {

inline constexpr std::string_view kWebSocketPath = "/v1/ws";

// GET of that path with "upgrade: websocket"; without it the route says how to ask.
bool asks_for_websocket(const HttpRequest& request);
void add_websocket_route(Router& router);

// Browsers cannot send a key in a header of their handshake: it may come as a subprotocol, "mlxs-key.KEY",
// beside "mlxs". Adds it as the header that it stands for.
void take_key_from_subprotocol(HttpRequest& handshake);

class WebSocketRequest;

class WebSocketSession final : public Session, public std::enable_shared_from_this<WebSocketSession> {
 public:
  // handshake: the request that asked for the upgrade; what it may do has been checked.
  WebSocketSession(std::shared_ptr<Transport> transport, ServerContext& context, HttpRequest handshake);
  ~WebSocketSession() override;
  WebSocketSession(const WebSocketSession&) = delete;
  WebSocketSession& operator=(const WebSocketSession&) = delete;

  net::awaitable<void> run() override;
  void drain() override;
  void cancel() override;

  // For its requests.
  ServerContext& context() { return context_; }
  const net::any_io_executor& executor() const { return executor_; }
  void send(std::string message);
  bool full() const { return unsent_ > kFull; }  // the client does not keep up

 private:
  static constexpr std::size_t kFull = 128 << 10;

  net::awaitable<bool> accept();
  net::awaitable<void> read();
  net::awaitable<void> write();
  net::awaitable<void> watch();
  void receive(std::string_view text);
  void start(ws::Request request);
  net::awaitable<void> serve(std::string id, std::shared_ptr<WebSocketRequest> request);
  void close(boost::beast::websocket::close_code code);  // after what is still to be written
  void end_if_drained();
  void spawn(net::awaitable<void> work);

  std::shared_ptr<Transport> transport_;
  ServerContext& context_;
  net::any_io_executor executor_;
  HttpRequest handshake_;
  boost::beast::websocket::stream<Transport&, false> stream_;
  Deadline write_deadline_;
  net::steady_timer tick_;
  std::shared_ptr<Wakeup> writable_, retired_, room_;
  std::deque<std::string> outbox_;
  std::size_t unsent_ = 0;  // bytes in outbox_
  std::unordered_map<std::string, std::shared_ptr<WebSocketRequest>> requests_;
  std::size_t running_ = 0;  // coroutines
  unsigned long started_ = 0;
  TimePoint last_use_;
  boost::beast::websocket::close_code close_ = boost::beast::websocket::close_code::none;
  bool gone_ = false;
  bool draining_ = false;
};

}  // namespace mlxs
