// A request that is being answered: its generators, its places, and the format its chunks go through; or a
// feed, where something other than the engine answers.
// Started on any thread, then used by one at a time. Destroying it ends whatever still runs, within one step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "admit/admission.h"
#include "mlxs/engine.h"
#include "serve/http.h"
#include "telemetry/request_log.h"

namespace mlxs {

class LiveAnswer {
 public:
  // Checks limits, takes places, tokenizes and queues every choice: all of them or none. May take long (a
  // long prompt). token_batch: tokens of a stream that go out as one. Throws mlxs::Error; kOverloaded if
  // there is no place.
  static LiveAnswer start(Engine& engine, Admission& admission, Generation generation, RequestTrace& trace,
                          int token_batch = 1);
  static LiveAnswer start(FeedReply reply);

  LiveAnswer(LiveAnswer&&) = default;
  LiveAnswer& operator=(LiveAnswer&&) = default;

  enum class State : std::uint8_t {
    kPending,  // nothing more for now
    kMore,     // enough for one write; there may be more
    kDone,     // out holds the end
    kFailed,   // see error(); nothing more comes
  };
  // Appends what has been produced by now. Never blocks.
  State pump(std::string& out);
  // After kPending: called once from an engine thread (or at once) when pump() has something to do.
  void notify_when_ready(const std::function<void()>& wake);

  // Held until the answer is over, beside what its generation holds.
  void hold(std::shared_ptr<void> until_over) { until_over_ = std::move(until_over); }

  bool streams() const { return !stream_type_.empty(); }
  std::string_view stream_type() const { return stream_type_; }
  const std::optional<Error>& error() const { return error_; }
  ErrorBody error_body() const { return error_body_; }
  // Ends a stream that has begun.
  void fail(const Error& error, std::string& out);
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  LiveAnswer() = default;
  State pump_feed(std::string& out);
  State take(std::size_t choice, std::string& out);
  void hold(std::size_t choice, Chunk chunk, std::string& out);
  void add_held(std::size_t choice, std::string& out);

  Admission::Ticket ticket_;
  std::shared_ptr<void> lease_, until_over_;
  std::unique_ptr<AnswerFormat> format_;  // null: feed_ answers
  std::unique_ptr<Feed> feed_;
  ErrorBody error_body_ = nullptr;
  std::vector<std::unique_ptr<Generator>> choices_;  // null: done
  std::size_t open_ = 0;                             // choices that are not done
  std::string_view stream_type_;                     // empty: one document
  struct Held {                                      // tokens of a choice that will go out as one
    Chunk chunk;
    int tokens = 0;
    bool begun = false;  // the first token did not wait
  };
  int token_batch_ = 1;
  std::vector<Held> held_;  // of each choice, where there is a batch
  std::vector<std::string> warnings_;
  std::optional<Error> error_;
};

}  // namespace mlxs
