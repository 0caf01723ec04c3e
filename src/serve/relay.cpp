#include "serve/relay.h"

#include <functional>
#include <utility>

namespace mlxs {
namespace {

// Waits until pump() says something else than kPending, or it must end.
net::awaitable<LiveAnswer::State> next_state(LiveAnswer& answer, std::shared_ptr<Wakeup> wakeup,
                                             const ReplySink& sink, std::string& out) {
  for (;;) {
    if (sink.gone() || sink.cancelled()) co_return LiveAnswer::State::kFailed;
    const LiveAnswer::State state = answer.pump(out);
    if (state != LiveAnswer::State::kPending || !out.empty()) co_return state;
    const std::function<void()> wake = [wakeup] { wakeup->notify(); };
    answer.notify_when_ready(wake);
    co_await wakeup->wait();
  }
}

Error reason_to_stop(const LiveAnswer& answer, const ReplySink& sink) {
  if (sink.cancelled() || !answer.error()) {
    return Error(ErrorCode::kUnavailable, "the server is shutting down", "send the request again");
  }
  return *answer.error();
}

void add_warnings(const LiveAnswer& answer, HttpResponse& response) {
  if (answer.warnings().empty()) return;
  response.headers.emplace_back("x-mlxs-warning", warning_text(answer.warnings()));
}

net::awaitable<void> relay_document(std::optional<LiveAnswer>& answer, std::shared_ptr<Wakeup> wakeup,
                                    ReplySink& sink) {
  HttpResponse response;
  const LiveAnswer::State state = co_await next_state(*answer, wakeup, sink, response.body);
  if (sink.gone()) co_return;
  if (state == LiveAnswer::State::kFailed) {
    response = failure_response(reason_to_stop(*answer, sink), answer->error_body());
  } else {
    add_warnings(*answer, response);
  }
  if (wants_timing(sink.request())) {
    response.headers.emplace_back("x-mlxs-timing", timing_now(sink.request()));
  }
  answer.reset();
  co_await sink.send(response);
}

// The head waits for the first piece, so that a request that fails before it gets a proper status.
net::awaitable<void> relay_stream(std::optional<LiveAnswer>& answer, std::shared_ptr<Wakeup> wakeup,
                                  ReplySink& sink) {
  bool begun = false;
  for (bool last = false; !last;) {
    std::string piece;
    const LiveAnswer::State state = co_await next_state(*answer, wakeup, sink, piece);
    if (sink.gone()) co_return;
    const bool failed = state == LiveAnswer::State::kFailed;
    if (failed && !begun && piece.empty()) {
      co_await sink.send(failure_response(reason_to_stop(*answer, sink), answer->error_body()));
      co_return;
    }
    if (failed) answer->fail(reason_to_stop(*answer, sink), piece);
    last = failed || state == LiveAnswer::State::kDone;
    HttpResponse head;
    if (!begun) {
      head.content_type = std::string(answer->stream_type());
      head.headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
      add_warnings(*answer, head);
    }
    co_await sink.send_piece(begun ? nullptr : &head, piece, last);
    begun = true;
    if (sink.gone()) co_return;
  }
}

}  // namespace

net::awaitable<void> relay(std::optional<LiveAnswer>& answer, std::shared_ptr<Wakeup> wakeup,
                           ReplySink& sink) {
  if (answer->streams()) {
    co_await relay_stream(answer, std::move(wakeup), sink);
  } else {
    co_await relay_document(answer, std::move(wakeup), sink);
  }
  answer.reset();  // whatever still runs ends here, before anything is waited for
}

}  // namespace mlxs
