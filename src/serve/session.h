// One protocol on one connection: HTTP/1.1, HTTP/2. Used on the connection's thread only.
#pragma once

#include "serve/asio.h"

namespace mlxs {

class Session {
 public:
  virtual ~Session() = default;
  // Serves until either side ends. A failure ends this, never more.
  virtual net::awaitable<void> run() = 0;
  virtual void drain() = 0;   // ends after the requests at hand; at once if there are none
  virtual void cancel() = 0;  // ends the requests at hand with an error, too
};

}  // namespace mlxs
