// One request on a WebSocket: from its message to the last chunk of its answer. Used on the connection's
// thread. Held by its session while it runs, and by its coroutine.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "serve/http.h"
#include "serve/relay.h"
#include "serve/wakeup.h"
#include "serve/websocket_messages.h"

namespace mlxs {

class WebSocketSession;

class WebSocketRequest final : public ReplySink, public std::enable_shared_from_this<WebSocketRequest> {
 public:
  WebSocketRequest(WebSocketSession& session, std::string id, HttpRequest request);
  ~WebSocketRequest() override;
  WebSocketRequest(const WebSocketRequest&) = delete;
  WebSocketRequest& operator=(const WebSocketRequest&) = delete;

  net::awaitable<void> run(std::shared_ptr<WebSocketRequest> self);
  void leave();   // nobody reads it any more
  void cancel();  // the server ends it
  void wake() { wakeup_->set(); }

  net::awaitable<void> send(const HttpResponse& response) override;
  net::awaitable<void> send_piece(const HttpResponse* head, const std::string& piece, bool last) override;
  const HttpRequest& request() const override { return request_; }
  bool gone() const override { return gone_; }
  bool cancelled() const override { return cancelled_; }
  Duration keep_alive() const override { return Duration::zero(); }  // the connection has pings

 private:
  net::awaitable<void> answer(std::shared_ptr<WebSocketRequest> self);
  void send_message(std::string message);

  WebSocketSession& session_;
  std::string id_;  // the client's
  HttpRequest request_;
  HeaderList headers_;  // of its response
  std::shared_ptr<Wakeup> wakeup_;
  std::optional<ws::ChunkCutter> cutter_;
  std::uint64_t bytes_ = 0;
  Duration socket_wait_{};
  int status_ = 0;  // of what was sent; 0: nothing yet
  bool gone_ = false, cancelled_ = false;
};

}  // namespace mlxs
