// The last requests and where their time went: a bounded ring of traces. A trace is begun by the server when
// a request is read, told of each choice's end by the engine and of the last byte by the connection, in
// whichever order these come. Thread-safe; every lock is held for a copy or a move only, and none of them is
// taken while a step runs. A trace lives as long as somebody holds it, longer than its place in the ring.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "mlxs/timeline.h"

namespace mlxs {

struct TraceStart {
  std::string id;  // the client's x-request-id, or made up
  std::string method, path, peer;
  std::string tenant;  // whose key; empty: the server asks nobody for one
  std::string model;
  std::string metadata = {};          // labels that the client gave it, as a JSON object; empty: none
  TimePoint received{};               // first byte
  std::int64_t received_unix_ns = 0;  // the same as wall time
};

struct TraceEnd {
  TimePoint at{};
  int status = 0;  // 0: the client was gone before there was one
  bool client_gone = false;
  std::uint64_t bytes = 0;         // written, head included
  double socket_wait_seconds = 0;  // for the client to take them
};

// A trace as it stood at one moment.
struct RequestReport {
  TraceStart start;
  std::optional<TraceEnd> end;
  std::size_t choices_expected = 0;
  std::vector<RequestTimeline> choices;  // those that ended, in the order of ending

  bool complete() const { return end && choices.size() == choices_expected; }
  // Received → last byte written, or the last choice's end if that came later (the client went first).
  double e2e_seconds() const;
  // From the end of the last choice to the last byte.
  double deliver_seconds() const;
};

class RequestTrace {
 public:
  explicit RequestTrace(TraceStart start) { report_.start = std::move(start); }

  void expect_choice();                // its record will come
  void add(RequestTimeline timeline);  // it came
  void end(const TraceEnd& end);
  RequestReport report() const;
  const std::string& id() const { return report_.start.id; }  // never changes

 private:
  mutable std::mutex mutex_;
  RequestReport report_;
};

class RequestLog {
 public:
  // keep: how many; 0: none.
  explicit RequestLog(std::size_t keep) : keep_(keep) {}

  std::shared_ptr<RequestTrace> begin(TraceStart start);
  // The newest with that id; null: there is none, or no longer.
  std::shared_ptr<RequestTrace> find(std::string_view id) const;
  // The newest first.
  std::vector<std::shared_ptr<RequestTrace>> latest(std::size_t most) const;
  std::size_t kept() const { return keep_; }

 private:
  const std::size_t keep_;
  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<RequestTrace>> traces_;  // oldest first
};

}  // namespace mlxs
