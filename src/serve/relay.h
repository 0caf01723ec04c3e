// Carries a live answer to its client, in any protocol: waits for what the engine produces, tells a failure
// before the first byte from one after it, and ends the work when the client goes. The protocol is the
// sink's.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "serve/asio.h"
#include "serve/live_answer.h"
#include "serve/prepare.h"
#include "serve/wakeup.h"

namespace mlxs {

// Where one reply goes. Used on its connection's thread. What awaits it resumes when there is room for more.
class ReplySink {
 public:
  virtual ~ReplySink() = default;
  virtual net::awaitable<void> send(const HttpResponse& response) = 0;  // all of the reply
  // A piece of a stream. head: with the first piece, what the stream begins with (its body is empty); else
  // null. last: no other follows. The piece may be used again when this is over.
  virtual net::awaitable<void> send_piece(const HttpResponse* head, const std::string& piece, bool last) = 0;
  virtual const HttpRequest& request() const = 0;
  virtual bool gone() const = 0;       // nobody reads this any more
  virtual bool cancelled() const = 0;  // the server ends it
  // After how long without a word a stream of events says that it is still there; zero: never.
  virtual Duration keep_alive() const = 0;
};

// Until the answer is over or nobody reads it. wakeup: woken by the engine and by whoever changes what gone()
// and cancelled() say. The answer is reset as soon as its work is done.
net::awaitable<void> relay(std::optional<LiveAnswer>& answer, std::shared_ptr<Wakeup> wakeup,
                           ReplySink& sink);

}  // namespace mlxs
