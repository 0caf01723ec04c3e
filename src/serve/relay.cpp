#include "serve/relay.h"

#include <functional>
#include <string_view>
#include <utility>

#include "serve/text_pool.h"

namespace mlxs {
namespace {

// A comment, which clients of server-sent events ignore, and proxies take for life.
constexpr std::string_view kStillThere = ": keep-alive\n\n";

bool ended(const ReplySink& sink) { return sink.gone() || sink.cancelled(); }

// Until pump() has something to do, or it must end. patience: false after so long without either; zero:
// never.
net::awaitable<bool> wait_for_more(LiveAnswer& answer, std::shared_ptr<Wakeup> wakeup, Duration patience) {
  const std::function<void()> wake = [wakeup] { wakeup->notify(); };
  answer.notify_when_ready(wake);
  if (patience > Duration::zero()) {
    const bool woken = co_await wakeup->wait_for(patience);
    co_return woken;
  }
  co_await wakeup->wait();
  co_return true;
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
  LiveAnswer::State state = LiveAnswer::State::kFailed;
  while (!ended(sink)) {
    state = answer->pump(response.body);
    if (state != LiveAnswer::State::kPending) break;
    co_await wait_for_more(*answer, wakeup, Duration::zero());
    state = LiveAnswer::State::kFailed;  // if it must end now
  }
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

// The head waits for the first piece, so that a request that fails before it gets a proper status; unless the
// first piece takes so long that the client, or a proxy in between, might give up.
net::awaitable<void> relay_stream(std::optional<LiveAnswer>& answer, std::shared_ptr<Wakeup> wakeup,
                                  ReplySink& sink) {
  const Duration patience = answer->stream_type() == kEventStream ? sink.keep_alive() : Duration::zero();
  bool begun = false;
  for (bool last = false; !last;) {
    PooledText piece;
    LiveAnswer::State state = ended(sink) ? LiveAnswer::State::kFailed : answer->pump(*piece);
    if (state == LiveAnswer::State::kPending && piece->empty()) {
      piece.give_back();
      const bool woken = co_await wait_for_more(*answer, wakeup, patience);
      if (woken) continue;
      *piece = kStillThere;
    }
    if (sink.gone()) co_return;
    const bool failed = state == LiveAnswer::State::kFailed;
    if (failed && !begun && piece->empty()) {
      co_await sink.send(failure_response(reason_to_stop(*answer, sink), answer->error_body()));
      co_return;
    }
    if (failed) answer->fail(reason_to_stop(*answer, sink), *piece);
    last = failed || state == LiveAnswer::State::kDone;
    std::optional<HttpResponse> head;
    if (!std::exchange(begun, true)) {
      head.emplace();
      head->content_type = std::string(answer->stream_type());
      head->headers = {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
      add_warnings(*answer, *head);
    }
    co_await sink.send_piece(head ? &*head : nullptr, *piece, last);
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
