// How an answer of the engine's is written in HTTP/1.1: a document with its length, or a stream in chunks.
#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <utility>

#include "serve/http1.h"
#include "serve/http_text.h"
#include "serve/relay.h"

namespace mlxs {
namespace {

// What ends a chunk of a chunked body, and behind the last one the body, with what could not stand in the
// head.
std::string end_of_chunk(const HttpRequest& request, bool last) {
  if (!last) return "\r\n";
  return wants_timing(request) ? fmt::format("\r\n0\r\nx-mlxs-timing: {}\r\n\r\n", timing_now(request))
                               : "\r\n0\r\n\r\n";
}

}  // namespace

// Before version 1.1 there are no chunks: the end of the connection is the end of the stream.
class Http1Session::Reply final : public ReplySink {
 public:
  Reply(Http1Session& session, Exchange& exchange) : session_(session), exchange_(exchange) {}

  net::awaitable<void> send(const HttpResponse& response) override {
    if (session_.draining_) exchange_.keep_alive = false;
    return session_.send_response(exchange_, response);
  }

  net::awaitable<void> send_piece(const HttpResponse* head, const std::string& piece, bool last) override {
    const bool chunked = exchange_.version >= 11;
    front_.clear();
    back_.clear();
    if (head != nullptr) front_ = begin(*head, chunked);
    if (chunked) {
      fmt::format_to(std::back_inserter(front_), "{:x}\r\n", piece.size());
      back_ = end_of_chunk(exchange_.request, last);
    }
    return session_.write({net::buffer(front_), net::buffer(piece), net::buffer(back_)},
                          session_.context_.options.stream_patience_ms());
  }

  const HttpRequest& request() const override { return exchange_.request; }
  bool gone() const override { return session_.gone_; }
  bool cancelled() const override { return session_.cancelled_; }
  Duration keep_alive() const override {
    return std::chrono::milliseconds(session_.context_.options.keep_alive_ms);
  }

 private:
  std::string begin(const HttpResponse& head, bool chunked) {
    if (session_.draining_ || !chunked) exchange_.keep_alive = false;
    ResponseHead text{.version = exchange_.version,
                      .keep_alive = exchange_.keep_alive,
                      .content_type = head.content_type,
                      .request_id = exchange_.request.id,
                      .headers = head.headers};
    if (chunked && wants_timing(exchange_.request)) text.headers.emplace_back("trailer", "x-mlxs-timing");
    exchange_.status = head.status;
    text.headers.insert(text.headers.end(), exchange_.headers.begin(), exchange_.headers.end());
    return render_head(text);
  }

  Http1Session& session_;
  Exchange& exchange_;
  std::string front_, back_;  // of a piece, while it is written
};

net::awaitable<void> Http1Session::send_answer(Exchange& exchange, std::optional<LiveAnswer>& answer) {
  watch_stops_ = false;
  watch();
  Reply reply(*this, exchange);
  co_await relay(answer, wakeup_, reply);
  co_await stop_watching();
}

}  // namespace mlxs
