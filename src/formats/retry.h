// How long to wait before a request is tried again: doubling while nothing moves, as long as a server asks,
// and not at all for ever. One transfer, one thread.
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>

namespace mlxs {

struct FetchAnswer;

bool may_pass(const FetchAnswer& answer);  // no answer, 408, 429, 5xx

class Retry {
 public:
  using Milliseconds = std::chrono::milliseconds;

  void progressed() { failures_ = 0; }
  // nullopt: give up. Counts the failure.
  std::optional<Milliseconds> next(const FetchAnswer& answer);

 private:
  int failures_ = 0;
  Milliseconds waited_{0};  // because a server asked
};

// Seconds of a Retry-After header: a number or an HTTP date. nullopt: absent or neither.
std::optional<std::chrono::seconds> retry_after(const FetchAnswer& answer);
// false: stopped meanwhile.
bool wait_for(std::chrono::milliseconds time, const std::stop_token& stop);

}  // namespace mlxs
