#include "serve/websocket_request.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "base/log.h"
#include "serve/exchange_record.h"
#include "serve/offload.h"
#include "serve/websocket.h"

namespace mlxs {

WebSocketRequest::WebSocketRequest(WebSocketSession& session, std::string id, HttpRequest request)
    : session_(session),
      id_(std::move(id)),
      request_(std::move(request)),
      wakeup_(std::make_shared<Wakeup>(session.executor())) {}

WebSocketRequest::~WebSocketRequest() { wakeup_->close(); }

net::awaitable<void> WebSocketRequest::run(std::shared_ptr<WebSocketRequest> self) {
  co_await answer(self);
  end_exchange(session_.context(), request_,
               {.at = std::chrono::steady_clock::now(),
                .status = status_,
                .client_gone = gone_,
                .bytes = bytes_,
                .socket_wait_seconds = to_seconds(socket_wait_)});
}

net::awaitable<void> WebSocketRequest::answer(std::shared_ptr<WebSocketRequest> self) {
  ServerContext& context = session_.context();
  auto work = [&context, self] { return prepare_reply(context, self->request_, self->headers_); };
  Prepared prepared = co_await offload(context.workers, std::move(work));
  request_.body = {};
  if (gone_) co_return;
  if (auto* response = std::get_if<HttpResponse>(&prepared)) {
    co_await send(*response);
    co_return;
  }
  std::optional<LiveAnswer> live(std::move(std::get<LiveAnswer>(prepared)));
  co_await relay(live, wakeup_, *this);
}

void WebSocketRequest::leave() {
  gone_ = true;
  wake();
}

void WebSocketRequest::cancel() {
  cancelled_ = true;
  wake();
}

void WebSocketRequest::send_message(std::string message) {
  bytes_ += message.size();
  session_.send(std::move(message));
}

net::awaitable<void> WebSocketRequest::send(const HttpResponse& response) {
  status_ = response.status;
  HttpResponse whole = response;
  whole.headers.insert(whole.headers.end(), headers_.begin(), headers_.end());
  send_message(ws::response(id_, whole));
  co_return;
}

net::awaitable<void> WebSocketRequest::send_piece(const HttpResponse* head, const std::string& piece,
                                                  bool last) {
  if (head != nullptr) {
    status_ = head->status;
    cutter_.emplace(id_, head->content_type);
    for (const auto& [name, value] : head->headers) {
      if (name == "x-mlxs-warning") send_message(ws::warning(id_, value));
    }
  }
  cutter_->add(piece, [this](std::string message) { send_message(std::move(message)); });
  if (last) send_message(ws::done(id_));
  if (last || !session_.full()) co_return;
  const TimePoint full = std::chrono::steady_clock::now();
  while (session_.full() && !gone_ && !cancelled_) co_await wakeup_->wait();
  socket_wait_ += std::chrono::steady_clock::now() - full;
}

}  // namespace mlxs
