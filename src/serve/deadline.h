// How long one thing on a connection may take: when its time is over, whatever the transport does is
// cancelled. Used on the transport's thread; refers to the transport, which outlives it.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <memory>

#include "serve/transport.h"

namespace mlxs {

class Deadline {
 public:
  explicit Deadline(Transport& transport);
  ~Deadline() { disarm(); }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  void arm(int timeout_ms);  // anew, if it was armed
  void disarm();
  bool expired() const { return state_->expired; }  // since it was last armed

 private:
  struct State {
    Transport* transport;
    unsigned armed = 0;  // counts arm() and disarm(): tells a late expiry from the current one
    bool expired = false;
  };
  net::steady_timer timer_;
  std::shared_ptr<State> state_;
};

}  // namespace mlxs
