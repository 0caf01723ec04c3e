// One request and its response on an HTTP/2 connection. Its session tells it what arrives and takes what goes
// out at the pace that the client's flow control allows; its coroutine runs from the complete request to the
// end of the answer. Used on the connection's thread. Held by the session while open, and by the coroutine,
// which holds the session.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "serve/http.h"
#include "serve/relay.h"
#include "serve/wakeup.h"

namespace mlxs {

class Http2Session;

class Http2Stream final : public ReplySink, public std::enable_shared_from_this<Http2Stream> {
 public:
  Http2Stream(Http2Session& session, std::int32_t id);
  ~Http2Stream() override;
  Http2Stream(const Http2Stream&) = delete;
  Http2Stream& operator=(const Http2Stream&) = delete;

  std::int32_t id() const { return id_; }

  // ---- what arrives
  bool add_header(std::string_view name, std::string_view value);  // false: far too many
  void end_headers();
  void add_body(std::string_view bytes);
  void complete();  // the request is whole: from here it runs
  bool is_complete() const { return complete_; }
  std::size_t body_size() const { return request_.body.size(); }

  // ---- what goes out
  std::size_t take(unsigned char* into, std::size_t size);  // the body's next bytes
  bool taken() const { return out_last_ && unsent() == 0; }
  bool responded() const { return responded_; }
  bool ends_with_timing() const { return ends_with_timing_; }  // a trailer

  // ---- what ends it
  void close();                                 // nobody reads it any more
  void cancel();                                // the server ends it
  void refuse(const Error& error, int status);  // before it runs
  bool lags(TimePoint now) const;               // it has waited for its client for too long: time_out()
  void time_out();

  net::awaitable<void> send(const HttpResponse& response) override;
  net::awaitable<void> send_piece(const HttpResponse* head, const std::string& piece, bool last) override;
  const HttpRequest& request() const override { return request_; }
  bool gone() const override { return gone_; }
  bool cancelled() const override { return cancelled_; }
  Duration keep_alive() const override;

 private:
  net::awaitable<void> run(std::shared_ptr<Http2Stream> self);
  net::awaitable<void> serve();
  void submit(const HttpResponse& head, std::optional<std::size_t> length);
  void respond(const HttpResponse& response);
  void end_record();
  std::size_t unsent() const { return out_.size() - out_taken_; }
  bool full() const;  // more waits for the client than it should: the stream pauses
  void append(std::string_view bytes);

  Http2Session& session_;
  std::int32_t id_;
  std::shared_ptr<Wakeup> wakeup_;
  HttpRequest request_;
  std::string target_;
  std::size_t header_bytes_ = 0;
  HeaderList headers_;  // of whatever response it gets
  std::string out_;     // the response's body, as far as it is known
  std::size_t out_taken_ = 0;
  std::uint64_t bytes_taken_ = 0;
  Duration socket_wait_{};  // for the client to take what there was
  int status_ = 0;          // sent; 0: nothing yet
  TimePoint opened_, last_taken_;
  bool out_last_ = false;   // nothing follows what is in out_
  bool complete_ = false;   // the request
  bool responded_ = false;  // the head is on its way
  bool ends_with_timing_ = false;
  bool gone_ = false, cancelled_ = false;
};

}  // namespace mlxs
