#include "serve/websocket.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <chrono>
#include <utility>
#include <variant>
#include <vector>

#include "base/log.h"
#include "serve/error_response.h"
#include "serve/exchange_record.h"
#include "serve/http_text.h"
#include "serve/websocket_request.h"

namespace mlxs {

// How Beast ends what lies under a WebSocket. Lingering: a client whose message is too long is still sending
// it when the close frame with the reason leaves; a reset would overtake that.
inline void beast_close_socket(Transport& transport) { transport.close(); }

template <class Handler>
void async_teardown(boost::beast::role_type, Transport& transport, Handler&& handler) {
  net::co_spawn(transport.get_executor(), transport.finish(true),
                [handler = std::forward<Handler>(handler)](const std::exception_ptr&) mutable {
                  handler(boost::system::error_code{});
                });
}

namespace {

namespace websocket = boost::beast::websocket;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::string_view kProtocol = "mlxs", kKeyProtocol = "mlxs-key.";
constexpr auto kPingEvery = std::chrono::seconds(30);  // Beast asks after half of its idle timeout
constexpr auto kTick = std::chrono::seconds(1);

// The items of a header that is a list.
std::vector<std::string_view> items_of(std::string_view list) {
  std::vector<std::string_view> items;
  while (!list.empty()) {
    std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(item.size() + 1, list.size()));
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (!item.empty()) items.push_back(item);
  }
  return items;
}

}  // namespace

bool asks_for_websocket(const HttpRequest& request) {
  return request.path == kWebSocketPath && request.method == "GET" &&
         lower_case(request.header("upgrade")) == "websocket";
}

void add_websocket_route(Router& router) {
  router.add("GET", std::string(kWebSocketPath), [](const HttpRequest&, std::string_view) -> Reply {
    constexpr int kUpgradeRequired = 426;
    HttpResponse response =
        error_response(Error(ErrorCode::kInvalidArgument, "this route speaks WebSocket only",
                             "connect to it with ws:// or wss://"),
                       kUpgradeRequired);
    response.headers.emplace_back("upgrade", "websocket");
    return response;
  });
}

void take_key_from_subprotocol(HttpRequest& handshake) {
  for (const std::string_view item : items_of(handshake.header("sec-websocket-protocol"))) {
    if (!item.starts_with(kKeyProtocol)) continue;
    std::string key(item.substr(kKeyProtocol.size()));
    handshake.headers.emplace_back("x-api-key", std::move(key));
    return;
  }
}

WebSocketSession::WebSocketSession(std::shared_ptr<Transport> transport, ServerContext& context,
                                   HttpRequest handshake)
    : transport_(std::move(transport)),
      context_(context),
      executor_(transport_->get_executor()),
      handshake_(std::move(handshake)),
      stream_(*transport_),
      write_deadline_(*transport_),
      tick_(executor_),
      writable_(std::make_shared<Wakeup>(executor_)),
      retired_(std::make_shared<Wakeup>(executor_)),
      room_(std::make_shared<Wakeup>(executor_)),
      last_use_(std::chrono::steady_clock::now()) {}

WebSocketSession::~WebSocketSession() {
  writable_->close();
  retired_->close();
  room_->close();
}

void WebSocketSession::drain() {
  draining_ = true;
  end_if_drained();
}

void WebSocketSession::cancel() {
  draining_ = true;
  for (const auto& [id, request] : requests_) request->cancel();
  end_if_drained();
}

void WebSocketSession::end_if_drained() {
  if (draining_ && requests_.empty()) close(websocket::close_code::going_away);
}

// ---------------------------------------------------------------- the coroutines

net::awaitable<void> WebSocketSession::run() {
  const bool accepted = co_await accept();
  if (accepted) {
    const int open = context_.options.counters->websockets.fetch_add(1) + 1;
    if (open > context_.options.max_websockets) close(websocket::close_code::policy_error);
    if (draining_) end_if_drained();
    spawn(write());
    spawn(watch());
    co_await read();
    gone_ = true;
    for (const auto& [id, request] : requests_) request->leave();
    writable_->set();
    tick_.cancel();
    while (running_ > 0) co_await retired_->wait();
    context_.options.counters->websockets.fetch_sub(1);
  }
  transport_->close();
}

void WebSocketSession::spawn(net::awaitable<void> work) {
  ++running_;
  net::co_spawn(executor_, std::move(work), [self = shared_from_this()](const std::exception_ptr& failure) {
    --self->running_;
    self->retired_->set();
    if (!failure) return;
    log::error("{}: a WebSocket failed", self->handshake_.id);
    self->transport_->close();
  });
}

net::awaitable<bool> WebSocketSession::accept() {
  http::request<http::empty_body> request(http::verb::get, kWebSocketPath, 11);
  for (const auto& [name, value] : handshake_.headers) request.insert(name, value);
  bool spoken = false;
  for (const std::string_view item : items_of(handshake_.header("sec-websocket-protocol"))) {
    spoken = spoken || item == kProtocol;
  }
  stream_.set_option(websocket::stream_base::decorator([&](websocket::response_type& response) {
    if (spoken) response.set(http::field::sec_websocket_protocol, kProtocol);
    response.set("x-request-id", handshake_.id);
  }));
  stream_.set_option(websocket::stream_base::timeout{
      .handshake_timeout = std::chrono::milliseconds(context_.options.request_timeout_ms),
      .idle_timeout = 2 * kPingEvery,
      .keep_alive_pings = true});
  stream_.read_message_max(context_.options.max_websocket_message_bytes);
  const auto [error] = co_await stream_.async_accept(request, kAsTuple);
  co_return !error;
}

net::awaitable<void> WebSocketSession::read() {
  boost::beast::flat_buffer buffer;
  for (;;) {
    const auto [error, size] = co_await stream_.async_read(buffer, kAsTuple);
    if (error) co_return;
    if (stream_.got_text()) {
      receive({static_cast<const char*>(buffer.data().data()), buffer.size()});
    } else {
      send(ws::error(Error(ErrorCode::kInvalidArgument, "binary messages are not read", "send text")));
    }
    buffer.clear();
    // A client that asks and never reads would fill the outbox with short answers.
    while (full() && close_ == websocket::close_code::none) co_await room_->wait();
  }
}

net::awaitable<void> WebSocketSession::write() {
  stream_.text(true);
  while (!gone_) {
    if (outbox_.empty()) {
      if (close_ != websocket::close_code::none) break;
      co_await writable_->wait();
      continue;
    }
    write_deadline_.arm(context_.options.stream_patience_ms());
    const auto [error, size] = co_await stream_.async_write(net::buffer(outbox_.front()), kAsTuple);
    if (write_deadline_.expired()) {
      context_.note_slow_reader(transport_->peer(), context_.options.stream_patience_ms());
    }
    write_deadline_.disarm();
    if (error) {
      close_ = websocket::close_code::abnormal;
      transport_->close();
      room_->set();
      co_return;
    }
    const bool was_full = full();
    unsent_ -= outbox_.front().size();
    outbox_.pop_front();
    if (!was_full || full()) continue;
    room_->set();
    for (const auto& [id, request] : requests_) request->wake();
  }
  if (gone_) co_return;
  write_deadline_.arm(context_.options.write_timeout_ms);
  co_await stream_.async_close(close_, kAsTuple);
  write_deadline_.disarm();
}

net::awaitable<void> WebSocketSession::watch() {
  const auto longest_idle = std::chrono::milliseconds(context_.options.websocket_idle_timeout_ms);
  while (!gone_) {
    tick_.expires_after(std::min<Duration>(kTick, longest_idle));
    co_await tick_.async_wait(kAsTuple);
    const bool idle = requests_.empty() && std::chrono::steady_clock::now() - last_use_ > longest_idle;
    if (idle) close(websocket::close_code::normal);
  }
}

// ---------------------------------------------------------------- messages

void WebSocketSession::receive(std::string_view text) {
  if (close_ != websocket::close_code::none) return;
  last_use_ = std::chrono::steady_clock::now();
  try {
    ws::Message message = ws::parse(text);
    if (auto* request = std::get_if<ws::Request>(&message)) {
      start(std::move(*request));
    } else if (const auto* named = std::get_if<ws::Cancel>(&message)) {
      const auto found = requests_.find(named->id);
      if (found == requests_.end()) {
        throw Error(ErrorCode::kNotFound, fmt::format("no request '{}' is running", named->id), "", "id");
      }
      const std::shared_ptr<WebSocketRequest> given_up = std::move(found->second);
      requests_.erase(found);
      given_up->leave();
      send(ws::cancelled(named->id));
      end_if_drained();
    } else {
      send(ws::pong());
    }
  } catch (const Error& error) {
    send(ws::error(error));
  }
}

void WebSocketSession::start(ws::Request message) {
  const int most = context_.options.max_streams;
  if (requests_.contains(message.id)) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("a request '{}' is running already", message.id),
                "give each its own id", "id");
  }
  // Requests that were given up may still hold a worker: they count, too.
  if (running_ >= static_cast<std::size_t>(most) + 2) {  // beside writer and watcher
    Error error(ErrorCode::kOverloaded, fmt::format("{} requests are running on this connection", most),
                "wait for one to end");
    error.set_retry_after_s(1);
    send(ws::response(message.id, failure_response(error, nullptr)));
    return;
  }
  HttpRequest request{.method = "POST",
                      .path = std::move(message.path),
                      .query = {},
                      .headers = handshake_.headers,
                      .peer = handshake_.peer,
                      .body = std::move(message.body),
                      .id = {}};
  identify(context_, request, fmt::format("{}-{}", handshake_.id, ++started_));
  auto running = std::make_shared<WebSocketRequest>(*this, message.id, std::move(request));
  requests_.emplace(message.id, running);
  spawn(serve(std::move(message.id), std::move(running)));
}

net::awaitable<void> WebSocketSession::serve(std::string id, std::shared_ptr<WebSocketRequest> request) {
  co_await request->run(request);
  last_use_ = std::chrono::steady_clock::now();
  const auto found = requests_.find(id);
  if (found != requests_.end() && found->second == request) requests_.erase(found);
  end_if_drained();
}

void WebSocketSession::send(std::string message) {
  unsent_ += message.size();
  outbox_.push_back(std::move(message));
  writable_->set();
}

void WebSocketSession::close(websocket::close_code code) {
  if (close_ == websocket::close_code::none) close_ = code;
  writable_->set();
  room_->set();
}

}  // namespace mlxs
