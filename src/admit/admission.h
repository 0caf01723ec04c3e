// What a request must pass before the engine sees it: limits on one request, and how many sequences may be in
// the house at once. Thread-safe; a Ticket holds its places until it goes, and the pace at which places come
// back gives Retry-After. Outlives its tickets.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace mlxs {

// Every number ≥ 1; the constructor throws kInvalidArgument otherwise.
struct AdmissionLimits {
  int max_in_flight = 2048;  // sequences (choices) of all requests together
  int max_choices = 128;     // sequences of one request: prompts × n
  int max_stop_strings = 16;
};

// What admission needs to know of a request.
struct RequestShape {
  int prompts = 1;
  int choices_per_prompt = 1;  // n
  int stop_strings = 0;
};

class Admission {
 public:
  Admission(AdmissionLimits limits, const Clock& clock);

  // The places of one request.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), places_(std::exchange(other.places_, 0)) {}
    Ticket& operator=(Ticket&& other) noexcept;
    ~Ticket() { release(1 << 30); }
    // Gives back so many places, at most those it holds: a choice has ended.
    void release(int places);

   private:
    friend class Admission;
    Ticket(Admission& owner, int places) : owner_(&owner), places_(places) {}
    Admission* owner_ = nullptr;
    int places_ = 0;
  };

  // kInvalidArgument naming the field, if the request alone asks for too much.
  void check(const RequestShape& shape) const;
  // nullopt: no room now; try again in retry_after_s(places).
  std::optional<Ticket> try_enter(int places);
  // The same, but without room it throws kOverloaded, with the time to wait.
  Ticket enter(int places);
  // Seconds until so many places are likely to be free, from the measured pace; 1 … 60.
  int retry_after_s(int places) const;

  int in_flight() const;

 private:
  void leave(int places);

  AdmissionLimits limits_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards what follows
  int in_flight_ = 0;
  std::optional<TimePoint> last_leave_;
  double seconds_per_place_ = 0;  // smoothed time between two places that come back; 0: not known yet
};

}  // namespace mlxs
