// HTTP/2 on one connection (nghttp2): frames in, frames out, limits; each request is an Http2Stream. Runs as
// coroutines on the connection's thread, which alone touches its state: one reads, one writes what nghttp2
// has to say in one gathered write a turn, one looks for what takes too long. Held by them and by its
// streams.
#pragma once

#include <array>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "serve/asio.h"
#include "serve/deadline.h"
#include "serve/server_context.h"
#include "serve/session.h"
#include "serve/transport.h"
#include "serve/wakeup.h"

struct nghttp2_session;

namespace mlxs {

class Http2Stream;

// The first bytes of every HTTP/2 connection.
inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

class Http2Session final : public Session, public std::enable_shared_from_this<Http2Session> {
 public:
  // beginning: what has been read of the connection already.
  Http2Session(std::shared_ptr<Transport> transport, ServerContext& context,
               boost::beast::flat_buffer beginning);
  ~Http2Session() override;
  Http2Session(const Http2Session&) = delete;
  Http2Session& operator=(const Http2Session&) = delete;

  net::awaitable<void> run() override;
  void drain() override;
  void cancel() override;

  // For its streams.
  ServerContext& context() { return context_; }
  const std::string& peer() const { return transport_->peer(); }
  nghttp2_session* frames() { return frames_; }
  const net::any_io_executor& executor() const { return executor_; }
  void flush() { writable_->set(); }  // there is something to write
  void reset(std::int32_t id, std::uint32_t code);
  void spawn(net::awaitable<void> work);  // keeps the session until it is done

 private:
  struct Callbacks;

  net::awaitable<void> read();
  net::awaitable<void> write();
  net::awaitable<bool> write_all(std::string_view bytes);  // false: the way to the client is gone
  net::awaitable<void> watch();
  void look_for_laggards();
  void open_stream(std::int32_t id);
  void close_stream(std::int32_t id);
  void count_reset();
  void check_order(std::int32_t id);
  void check_bodies(const Http2Stream& newest);
  void end(std::uint32_t code);  // GOAWAY, then the connection closes
  void abandon();                // nobody is there any more

  std::shared_ptr<Transport> transport_;
  ServerContext& context_;
  net::any_io_executor executor_;
  boost::beast::flat_buffer buffer_;
  Deadline write_deadline_;
  net::cancellation_signal read_cancel_;
  net::steady_timer tick_;
  std::shared_ptr<Wakeup> writable_;
  std::shared_ptr<Wakeup> retired_;
  nghttp2_session* frames_ = nullptr;
  std::unordered_map<std::int32_t, std::shared_ptr<Http2Stream>> streams_;  // open
  std::size_t running_ = 0;  // coroutines: our own, and of streams, also of those closed meanwhile
  std::int32_t newest_ = 0;  // stream
  std::array<std::int32_t, 128> seen_{};  // streams, the last ones that there were
  std::size_t next_seen_ = 0;
  int continuations_ = 0;  // frames of one header
  double resets_ = 0;      // streams that ended early, of late
  TimePoint last_reset_{}, idle_since_{};
  std::optional<TimePoint> cancelled_at_;
  bool gone_ = false;
  bool ended_ = false;    // reads no more
  bool blamed_ = false;   // because of what the client did: it may still be sending
  bool stalled_ = false;  // in a write that the client does not take
};

}  // namespace mlxs
