#include "serve/deadline.h"

#include <chrono>

namespace mlxs {

Deadline::Deadline(Transport& transport)
    : timer_(transport.get_executor()), state_(std::make_shared<State>(State{.transport = &transport})) {}

void Deadline::arm(int timeout_ms) {
  state_->expired = false;
  timer_.expires_after(std::chrono::milliseconds(timeout_ms));
  timer_.async_wait([state = state_, mine = ++state_->armed](boost::system::error_code error) {
    if (error || mine != state->armed) return;
    state->expired = true;
    state->transport->cancel();
  });
}

void Deadline::disarm() {
  ++state_->armed;
  timer_.cancel();
}

}  // namespace mlxs
