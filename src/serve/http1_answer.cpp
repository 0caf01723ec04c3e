// How a request becomes what is written back: prepared by a worker, then sent as a document or a stream.
#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "serve/http1.h"
#include "serve/http_text.h"

namespace mlxs {
namespace {

// A chunk of a chunked body.
std::string as_http_chunk(std::string_view data) { return fmt::format("{:x}\r\n{}\r\n", data.size(), data); }

// The end of a chunked body, with what could not stand in the head.
std::string last_http_chunk(const HttpRequest& request) {
  return wants_timing(request) ? fmt::format("0\r\nx-mlxs-timing: {}\r\n\r\n", timing_now(request))
                               : "0\r\n\r\n";
}

}  // namespace

net::awaitable<void> Http1Session::send_answer(Exchange& exchange, std::optional<LiveAnswer>& answer) {
  watch_stops_ = false;
  watch();
  if (answer->streams()) {
    co_await send_stream(exchange, answer);
  } else {
    co_await send_document(exchange, answer);
  }
  answer.reset();  // whatever still runs ends here, before anything is waited for
  co_await stop_watching();
}

net::awaitable<LiveAnswer::State> Http1Session::next_state(LiveAnswer& answer, std::string& out) {
  for (;;) {
    if (gone_ || cancelled_) co_return LiveAnswer::State::kFailed;
    const LiveAnswer::State state = answer.pump(out);
    if (state != LiveAnswer::State::kPending || !out.empty()) co_return state;
    const std::function<void()> wake = [wakeup = wakeup_] { wakeup->notify(); };
    answer.notify_when_ready(wake);
    co_await wakeup_->wait();
  }
}

std::optional<Error> Http1Session::reason_to_stop(const LiveAnswer& answer) const {
  if (cancelled_)
    return Error(ErrorCode::kUnavailable, "the server is shutting down", "send the request again");
  return answer.error();
}

net::awaitable<void> Http1Session::send_document(Exchange& exchange, std::optional<LiveAnswer>& answer) {
  HttpResponse response;
  const LiveAnswer::State state = co_await next_state(*answer, response.body);
  if (gone_) co_return;
  if (state == LiveAnswer::State::kFailed) {
    response = failure_response(*reason_to_stop(*answer), answer->error_body());
  } else if (!answer->warnings().empty()) {
    response.headers.emplace_back("x-mlxs-warning", warning_text(answer->warnings()));
  }
  if (wants_timing(exchange.request)) {
    response.headers.emplace_back("x-mlxs-timing", timing_now(exchange.request));
  }
  answer.reset();
  if (draining_) exchange.keep_alive = false;
  co_await send_response(exchange, response);
}

// The head waits for the first chunk, so that a request that fails before it gets a proper status.
net::awaitable<void> Http1Session::send_stream(Exchange& exchange, std::optional<LiveAnswer>& answer) {
  const bool chunked = exchange.version >= 11;
  if (!chunked) exchange.keep_alive = false;  // the end of the connection is the end of the stream
  bool begun = false;
  for (LiveAnswer::State state = LiveAnswer::State::kPending; state != LiveAnswer::State::kDone;) {
    std::string events;
    state = co_await next_state(*answer, events);
    if (gone_) co_return;
    const bool failed = state == LiveAnswer::State::kFailed;
    if (failed && !begun && events.empty()) {
      co_await send_response(exchange, failure_response(*reason_to_stop(*answer), answer->error_body()));
      co_return;
    }
    if (failed) {
      answer->fail(*reason_to_stop(*answer), events);
      state = LiveAnswer::State::kDone;
    }
    std::string text;
    if (!begun) {
      if (draining_) exchange.keep_alive = false;
      ResponseHead head{.version = exchange.version,
                        .keep_alive = exchange.keep_alive,
                        .content_type = answer->stream_type(),
                        .request_id = exchange.request.id,
                        .headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}}};
      if (!answer->warnings().empty()) {
        head.headers.emplace_back("x-mlxs-warning", warning_text(answer->warnings()));
      }
      if (chunked && wants_timing(exchange.request)) head.headers.emplace_back("trailer", "x-mlxs-timing");
      head.headers.insert(head.headers.end(), exchange.headers.begin(), exchange.headers.end());
      text = render_head(head);
      exchange.status = head.status;
      begun = true;
    }
    text += chunked ? as_http_chunk(events) : events;
    if (chunked && state == LiveAnswer::State::kDone) text += last_http_chunk(exchange.request);
    co_await write_text(std::move(text));
    if (gone_) co_return;
  }
}

}  // namespace mlxs
