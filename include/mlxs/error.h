// The one error type of mlx-serving: a code, what happened, and what to do about it.
// Thrown at module boundaries; never thrown across requests inside the step loop.
// serve/ maps codes to HTTP statuses in one table.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mlxs {

enum class ErrorCode {
  kInvalidArgument,   // a value is of the wrong type or outside its range
  kInvalidJson,       // a body is not JSON; the message carries the byte position
  kContextOverflow,   // prompt (+ requested tokens) exceed the model's context
  kTooLarge,          // a body or file exceeds its limit
  kNotFound,          // no such route or file
  kModelNotFound,     // no such model (the hint names near ones)
  kModelLoad,         // a model file is damaged, incomplete or unsupported
  kMethodNotAllowed,  // the route exists, the method does not
  kUnauthorized,      // missing or wrong key
  kForbidden,         // a key that is known, or a page, but not for this
  kOverloaded,        // queue full; retry later
  kCancelled,         // the client or caller cancelled
  kTimeout,           // a deadline passed
  kUnavailable,       // draining or not ready
  kOutOfMemory,       // memory or KV pages cannot hold what was asked
  kIo,                // the operating system refused (disk, socket)
  kInternal,          // a bug of ours
};

// Stable lower-case name of a code ("invalid_argument"), as printed and sent to clients.
std::string_view error_code_name(ErrorCode code);

class Error : public std::runtime_error {
 public:
  // message: names the thing and the value. hint: the remedy; may be empty. field: the request field, if one.
  Error(ErrorCode code, std::string message, std::string hint = {}, std::string field = {})
      : std::runtime_error(std::move(message)),
        code_(code),
        hint_(std::move(hint)),
        field_(std::move(field)) {}

  ErrorCode code() const { return code_; }
  const std::string& hint() const { return hint_; }
  const std::string& field() const { return field_; }
  // kOverloaded: whole seconds after which another try is likely to succeed; 0: never, as it is.
  int retry_after_s() const { return retry_after_s_; }
  void set_retry_after_s(int seconds) { retry_after_s_ = seconds; }
  // "message (hint)" on one line, as logs and the terminal show it.
  std::string full() const { return hint_.empty() ? what() : std::string(what()) + " (" + hint_ + ")"; }

 private:
  ErrorCode code_;
  std::string hint_;
  std::string field_;
  int retry_after_s_ = 0;
};

}  // namespace mlxs
