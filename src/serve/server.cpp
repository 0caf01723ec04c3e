#include "serve/server.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "serve/anthropic.h"
#include "serve/connection_set.h"
#include "serve/embeddings.h"
#include "serve/log_routes.h"
#include "serve/ollama.h"
#include "serve/openai.h"
#include "serve/openapi.h"
#include "serve/operations.h"
#include "serve/page.h"
#include "serve/request_routes.h"
#include "serve/rerank.h"
#include "serve/responses.h"
#include "serve/tokenize_routes.h"
#include "serve/websocket.h"

namespace mlxs {
namespace {

using boost::system::error_code;

constexpr double kCancelSeconds = 5;  // for cancelled requests to tell their clients
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr int kTurnedAwayAtOnce = 64;  // connections over the limit that still get an answer

// A thread that runs the connections assigned to it.
struct IoThread {
  net::io_context context{1};
  net::executor_work_guard<net::io_context::executor_type> guard{context.get_executor()};
  std::thread thread;
};

void check(const ServerOptions& options) {
  const auto positive = [](const char* name, auto value) {
    if (value >= 1) return;
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} = {}", name, value),
                fmt::format("{} must be at least 1", name), name);
  };
  positive("io_threads", options.io_threads);
  positive("worker_threads", options.worker_threads);
  positive("max_connections", options.max_connections);
  positive("max_streams", options.max_streams);
  positive("max_header_bytes", options.max_header_bytes);
  positive("max_body_bytes", options.max_body_bytes);
  positive("max_websockets", options.max_websockets);
  positive("max_websocket_message_bytes", options.max_websocket_message_bytes);
  positive("websocket_idle_timeout_ms", options.websocket_idle_timeout_ms);
  positive("idle_timeout_ms", options.idle_timeout_ms);
  positive("request_timeout_ms", options.request_timeout_ms);
  positive("write_timeout_ms", options.write_timeout_ms);
  if (options.keep_requests < 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("keep_requests = {}", options.keep_requests),
                "0 keeps none", "keep_requests");
  }
  positive("send_buffer_bytes", options.send_buffer_bytes);
}

ServerOptions with_counters(ServerOptions options) {
  if (!options.counters) options.counters = std::make_shared<ServerCounters>();
  return options;
}

std::unique_ptr<TlsCredentials> tls_credentials(const ServerOptions& options) {
  if (options.tls_certificate_file.empty() && options.tls_key_file.empty()) return nullptr;
  if (options.tls_certificate_file.empty() || options.tls_key_file.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "TLS needs a certificate and its key, and one of them is missing",
                "give --tls-cert and --tls-key", options.tls_key_file.empty() ? "tls_key" : "tls_cert");
  }
  return std::make_unique<TlsCredentials>(options.tls_certificate_file, options.tls_key_file);
}

}  // namespace

struct Server::Impl {
  Impl(const ServerOptions& options, Engine& engine, std::function<std::string()> metrics)
      : context{.options = with_counters(options),
                .engine = engine,
                .router = {},
                .cors = CorsPolicy(options.cors_origins),
                .tls = tls_credentials(options),
                .admission = Admission(options.admission, clock),
                .requests = RequestLog(static_cast<std::size_t>(options.keep_requests), options.listener),
                .workers = net::thread_pool(static_cast<std::size_t>(options.worker_threads))} {
    add_openai_routes(context.router, engine);
    add_responses_routes(context.router, engine);
    add_embedding_routes(context.router, engine);
    add_rerank_routes(context.router, engine);
    add_tokenize_routes(context.router, engine);
    add_anthropic_routes(context.router, engine);
    add_ollama_routes(context.router, engine);
    add_page_routes(context.router);
    add_request_routes(context.router, context.requests);
    add_operations_routes(context.router, engine,
                          {.metrics = std::move(metrics),
                           .draining = [this] { return context.draining.load(); },
                           .flight = options.flight});
    add_log_routes(context.router);
    add_websocket_route(context.router);
    add_openapi_route(context.router, !options.keys.empty());
    for (int i = 0; i < options.io_threads; ++i) io.push_back(std::make_unique<IoThread>());
  }

  tcp::endpoint resolve();
  void listen();
  net::awaitable<void> accept();
  void serve(tcp::socket socket);
  void stop_accepting();

  SteadyClock clock;
  ServerContext context;
  ConnectionSet connections;
  std::atomic<int> turned_away{0};
  std::vector<std::unique_ptr<IoThread>> io;
  std::optional<tcp::acceptor> acceptor;  // runs on the first I/O thread
  std::uint16_t port = 0;
  std::size_t next_io = 0;
  bool started = false;
};

tcp::endpoint Server::Impl::resolve() {
  const ServerOptions& options = context.options;
  error_code error;
  tcp::resolver resolver(io.front()->context);
  const auto found = resolver.resolve(options.host, fmt::format("{}", options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    throw Error(ErrorCode::kIo, fmt::format("host '{}' is not known: {}", options.host, error.message()),
                "give an address of this machine, 127.0.0.1 or 0.0.0.0", "host");
  }
  for (const auto& entry : found) {
    if (entry.endpoint().address().is_v4()) return entry.endpoint();  // "localhost" is both
  }
  return found.begin()->endpoint();
}

void Server::Impl::listen() {
  const ServerOptions& options = context.options;
  const tcp::endpoint endpoint = resolve();
  acceptor.emplace(io.front()->context);
  error_code error;
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(net::socket_base::reuse_address(true), error);  // a restart need not wait
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(net::socket_base::max_listen_connections, error);
  if (error == net::error::address_in_use) {
    throw Error(ErrorCode::kIo, fmt::format("port {} is in use on {}", options.port, options.host),
                "stop what listens there, or choose another port (0 takes a free one)", "port");
  }
  if (error) {
    throw Error(ErrorCode::kIo,
                fmt::format("cannot listen on {} port {}: {}", options.host, options.port, error.message()),
                "choose another host or port", "host");
  }
  port = acceptor->local_endpoint().port();
}

net::awaitable<void> Server::Impl::accept() {
  net::steady_timer pause(io.front()->context);
  bool complained = false;
  while (acceptor->is_open()) {
    IoThread& home = *io[next_io++ % io.size()];
    auto [error, socket] =
        co_await acceptor->async_accept(net::any_io_executor(home.context.get_executor()), kAsTuple);
    if (!error) {
      complained = false;
      serve(std::move(socket));
      continue;
    }
    if (!acceptor->is_open()) break;
    // Usually out of file descriptors: connections that end give some back.
    if (!std::exchange(complained, true))
      log::error("connections cannot be accepted for now: {}", error.message());
    pause.expires_after(kAcceptPause);
    co_await pause.async_wait(kAsTuple);
  }
}

void Server::Impl::serve(tcp::socket socket) {
  const net::any_io_executor executor = socket.get_executor();
  auto connection = std::make_shared<Connection>(std::move(socket), context);
  if (connections.size() >= static_cast<std::size_t>(context.options.max_connections)) {
    if (turned_away.fetch_add(1) >= kTurnedAwayAtOnce) {
      turned_away.fetch_sub(1);
      return;
    }
    net::co_spawn(executor, connection->turn_away(),
                  [this, connection](const std::exception_ptr&) { turned_away.fetch_sub(1); });
    return;
  }
  connections.add(connection);
  ++context.options.counters->connections;
  net::co_spawn(executor, connection->run(), [this, connection](const std::exception_ptr& failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      log::error("a connection ended: {}", error.what());
    }
    --context.options.counters->connections;
    connections.remove(connection.get());
  });
}

void Server::Impl::stop_accepting() {
  net::post(io.front()->context, [this] {
    error_code ignored;
    acceptor->close(ignored);
  });
}

Server::Server(const ServerOptions& options, Engine& engine, std::function<std::string()> metrics) {
  check(options);
  impl_ = std::make_unique<Impl>(options, engine, std::move(metrics));
}

Server::~Server() { stop(); }

void Server::start() {
  impl_->listen();
  impl_->started = true;
  net::co_spawn(impl_->io.front()->context, impl_->accept(), [](const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);  // a bug: end loudly
  });
  for (const auto& io : impl_->io) io->thread = std::thread([&context = io->context] { context.run(); });
}

std::uint16_t Server::port() const { return impl_->port; }

void Server::reload_tls() {
  if (impl_->context.tls) impl_->context.tls->reload();
}

void Server::drain(double timeout_s) {
  if (!impl_->started) return;
  impl_->context.draining = true;
  impl_->stop_accepting();
  impl_->connections.for_each([](Connection& connection) { connection.drain(); });
  if (impl_->connections.wait_empty(std::chrono::duration<double>(timeout_s))) return;
  log::warn("{} connection(s) did not finish within {} s and are ended", impl_->connections.size(),
            timeout_s);
  impl_->connections.for_each([](Connection& connection) { connection.cancel(); });
  impl_->connections.wait_empty(std::chrono::duration<double>(kCancelSeconds));
}

void Server::stop() {
  if (!std::exchange(impl_->started, false)) return;
  impl_->context.draining = true;
  impl_->stop_accepting();
  impl_->connections.for_each([](Connection& connection) { connection.cancel(); });
  impl_->connections.wait_empty(std::chrono::duration<double>(kCancelSeconds));
  impl_->context.workers.join();  // they post to the I/O threads
  for (const auto& io : impl_->io) {
    io->guard.reset();
    io->context.stop();
    io->thread.join();
  }
}

}  // namespace mlxs
