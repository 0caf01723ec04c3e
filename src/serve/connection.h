// One client connection: brings up TLS where it is asked for, finds out which protocol the client speaks, and
// lets a session of that protocol serve it. Runs as a coroutine on one I/O thread, which alone touches its
// state; drain() and cancel() may come from any thread. Held by its coroutine.
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <memory>
#include <string>

#include "serve/asio.h"
#include "serve/deadline.h"
#include "serve/server_context.h"
#include "serve/session.h"
#include "serve/transport.h"

namespace mlxs {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(StreamSocket socket, std::string peer, ServerContext& context);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Serves until either side ends. The caller keeps the connection alive meanwhile.
  net::awaitable<void> run();
  // Instead of run(): says that there are too many connections.
  net::awaitable<void> turn_away();

  void drain();   // ends after the requests at hand; at once if there are none
  void cancel();  // ends the requests at hand with an error, too

 private:
  net::awaitable<bool> secure();          // false: no TLS came about
  net::awaitable<bool> read_beginning();  // until the protocol is clear; false: the client went

  std::shared_ptr<Transport> transport_;
  ServerContext& context_;
  Deadline deadline_;
  boost::beast::flat_buffer beginning_;
  std::shared_ptr<Session> session_;  // null: which one is not clear yet
  bool draining_ = false;
};

}  // namespace mlxs
