// HTTP/1.1 on one connection: reads requests one after the other, answers each, and notices at once when the
// client goes. Runs as a coroutine on the connection's thread, which alone touches its state.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "serve/asio.h"
#include "serve/deadline.h"
#include "serve/http.h"
#include "serve/live_answer.h"
#include "serve/prepare.h"
#include "serve/server_context.h"
#include "serve/session.h"
#include "serve/transport.h"
#include "serve/wakeup.h"

namespace mlxs {

// A response before any request, and the end of the connection.
net::awaitable<void> send_last_response(Transport& transport, const HttpResponse& response);

class Http1Session final : public Session, public std::enable_shared_from_this<Http1Session> {
 public:
  // beginning: what has been read of the connection already.
  Http1Session(std::shared_ptr<Transport> transport, ServerContext& context,
               boost::beast::flat_buffer beginning);
  ~Http1Session() override;
  Http1Session(const Http1Session&) = delete;
  Http1Session& operator=(const Http1Session&) = delete;

  net::awaitable<void> run() override;
  void drain() override;
  void cancel() override;

  // After run(): the request that turns the connection into a WebSocket, if that is how it ended.
  std::optional<HttpRequest> take_upgrade() { return std::move(upgrade_); }

 private:
  // What of a request decides how its response is sent.
  struct Exchange {
    HttpRequest request;
    int version = 11;
    bool keep_alive = false;
    HeaderList headers;  // of whatever response it gets
    int status = 0;      // sent; 0: nothing yet
  };

  class Reply;

  net::awaitable<bool> wait_for_request();
  net::awaitable<bool> serve_request();  // false: the connection ends
  net::awaitable<bool> read_request(Exchange& exchange);
  net::awaitable<bool> allow_upgrade(Exchange& exchange);
  net::awaitable<void> refuse_request(Exchange& exchange, boost::system::error_code error);

  net::awaitable<void> send_response(Exchange& exchange, const HttpResponse& response);
  net::awaitable<void> send_answer(Exchange& exchange, std::optional<LiveAnswer>& answer);

  using Pieces = std::array<net::const_buffer, 3>;             // of one gathered write; may be empty
  net::awaitable<void> write(Pieces pieces, int patience_ms);  // sets gone_ if it fails
  net::awaitable<void> write_text(std::string text);
  void end(const Exchange& exchange);

  void watch();  // reads ahead while an answer is on its way: its end is the client's
  net::awaitable<void> stop_watching();
  void hang_up();

  std::shared_ptr<Transport> transport_;
  ServerContext& context_;
  boost::beast::flat_buffer buffer_;  // read, not yet used: also requests that came early
  Deadline deadline_;
  std::shared_ptr<Wakeup> wakeup_;
  std::optional<HttpRequest> upgrade_;
  net::cancellation_signal watch_cancel_;
  std::uint64_t bytes_sent_ = 0;  // of the exchange at hand, as socket_wait_ is
  Duration socket_wait_{};
  bool watching_ = false;
  bool watch_stops_ = false;
  bool stalled_ = false;    // in a write that the client does not take
  bool gone_ = false;       // the client, or our way to it
  bool idle_ = false;       // between requests
  bool draining_ = false;   // no further request
  bool cancelled_ = false;  // the running one ends too
  bool unread_ = false;     // the client may still be sending what nobody will read
};

}  // namespace mlxs
