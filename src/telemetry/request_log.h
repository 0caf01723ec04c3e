// The last requests and where their time went: a bounded ring of traces. A trace is begun by the server when
// a request is read, told of each choice's end by the engine and of the last byte by the connection, in
// whichever order these come; whoever listens hears once of each that is complete. Thread-safe; every lock is
// held for a copy or a move only, and none of them is taken while a step runs. A trace lives as long as
// somebody holds it, longer than its place in the ring.
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
#include "telemetry/trace_context.h"

namespace mlxs {

// What the client asked for, as far as records tell of it.
struct RequestFacts {
  std::string operation;  // "chat", "text_completion"; empty: no request to a model
  bool stream = false;
  bool generates = true;         // else it encodes: nothing is sampled
  int prompts = 1, choices = 1;  // choices of each prompt
  std::optional<int> max_tokens;
  float temperature = 0, top_p = 1, presence_penalty = 0, frequency_penalty = 0;
  int top_k = 0;
  std::optional<std::uint64_t> seed;
  double slo_ttft_ms = 0, slo_tpot_ms = 0;  // 0: no target
  std::string prompt;                       // only if prompts are to be logged
};

struct TraceStart {
  std::string id;  // the client's x-request-id, or made up
  std::string method, path, peer;
  std::string tenant;  // whose key; empty: the server asks nobody for one
  std::string model;
  std::string metadata = {};          // labels that the client gave it, as a JSON object; empty: none
  TimePoint received{};               // first byte
  std::int64_t received_unix_ns = 0;  // the same as wall time
  TraceContext context;
  RequestFacts facts;
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
  // A status from 400 on, or a choice that the engine could not finish.
  bool failed() const;
  // Of its own targets, one was missed.
  bool missed_target() const;
};

class RequestTrace;

// The choices of one prompt, as they end.
struct PromptChoices {
  explicit PromptChoices(int n) : choices(n), open(n) {}
  const int choices;
  int open;
  int longest_tokens = 0;
};

// Hears of requests, on the engine's thread or a connection's: must not block or throw.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // last_of: the choice's prompt, if it was the last of its choices; else null. Before its reader hears of
  // it.
  virtual void on_choice_ended(const RequestTimeline& /*ended*/, const PromptChoices* /*last_of*/) {}
  virtual void on_request_done(std::shared_ptr<const RequestTrace> trace) = 0;
};

// Always held by a shared_ptr.
class RequestTrace : public std::enable_shared_from_this<RequestTrace> {
 public:
  explicit RequestTrace(TraceStart start, std::shared_ptr<RequestListener> listener = nullptr)
      : listener_(std::move(listener)) {
    report_.start = std::move(start);
  }

  // What it asks for, once that is known; its id stays.
  void describe(TraceStart start);
  void expect_choice();  // its record will come
  // It came; prompt: whose choice it is, of this trace only, or null.
  void add(RequestTimeline timeline, PromptChoices* prompt = nullptr);
  void end(const TraceEnd& end);
  RequestReport report() const;
  // Never change.
  const std::string& id() const { return report_.start.id; }
  const TraceContext& context() const { return report_.start.context; }
  bool described() const;  // describe() was called

 private:
  bool completes();  // with the lock: now, for the first time
  void tell();

  const std::shared_ptr<RequestListener> listener_;
  mutable std::mutex mutex_;
  RequestReport report_;
  bool told_ = false;
  bool described_ = false;
};

class RequestLog {
 public:
  // keep: how many; 0: none.
  explicit RequestLog(std::size_t keep, std::shared_ptr<RequestListener> listener = nullptr)
      : keep_(keep), listener_(std::move(listener)) {}

  std::shared_ptr<RequestTrace> begin(TraceStart start);  // open() and keep()
  // One that is not in the ring, unless keep() is called; whoever listens hears of it in any case.
  std::shared_ptr<RequestTrace> open(TraceStart start) const;
  void keep(std::shared_ptr<RequestTrace> trace);
  // The newest with that id; null: there is none, or no longer.
  std::shared_ptr<RequestTrace> find(std::string_view id) const;
  // The newest first.
  std::vector<std::shared_ptr<RequestTrace>> latest(std::size_t most) const;
  std::size_t kept() const { return keep_; }

 private:
  const std::size_t keep_;
  const std::shared_ptr<RequestListener> listener_;
  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<RequestTrace>> traces_;  // oldest first
};

}  // namespace mlxs
