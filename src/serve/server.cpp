#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/thread_name.h"
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
#include "serve/unix_socket.h"
#include "serve/websocket.h"

namespace mlxs {
namespace {

using boost::system::error_code;

constexpr int kMostBatched = 10;
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
  positive("stream_buffer_bytes", options.stream_buffer_bytes);
  positive("slow_reader_timeout_ms", options.slow_reader_timeout_ms);
  if (options.token_batch < 1 || options.token_batch > kMostBatched) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("token_batch = {}", options.token_batch),
                fmt::format("1 to {} tokens can be sent together", kMostBatched), "token_batch");
  }
  if (options.keep_alive_ms < 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("keep_alive_ms = {}", options.keep_alive_ms),
                "0 sends none", "keep_alive_ms");
  }
  if (!options.listen_tcp && options.unix_socket.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the server would listen nowhere",
                "give a port or the path of a Unix socket", "unix_socket");
  }
  if (options.unix_socket_mode < 0 || options.unix_socket_mode > 0777) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("unix_socket_mode = {:o}", options.unix_socket_mode),
                "give permission bits, 0 to 777", "unix_socket_mode");
  }
}

// With a clock of its own: it may outlive the server.
std::shared_ptr<RateLimiter> make_rate_limiter() {
  struct WithClock {
    SteadyClock clock;
    RateLimiter limiter{clock};
  };
  const auto whole = std::make_shared<WithClock>();
  return {whole, &whole->limiter};
}

// All choices of a request are queued at once: more than the queue can hold would be refused for ever.
int choices_limit(const AdmissionLimits& limits, const Engine& engine) {
  return std::min({limits.max_choices, limits.max_in_flight, engine.options().max_queue_depth});
}

// Without the keys, which may change, and with counters.
ServerOptions prepared(ServerOptions options) {
  options.keys = {};
  if (!options.counters) options.counters = std::make_shared<ServerCounters>();
  return options;
}

std::string peer_of(const tcp::socket& socket) {
  error_code ignored;
  const tcp::endpoint peer = socket.remote_endpoint(ignored);
  return ignored ? std::string() : peer.address().to_string();
}
std::string peer_of(const net::local::stream_protocol::socket&) { return "unix"; }

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

void ServerContext::note_slow_reader(std::string_view peer, int patience_ms) const {
  ++options.counters->slow_readers;
  log::warn("the client {} took nothing of its stream for {} ms and is given up", peer, patience_ms);
}

struct Server::Impl {
  Impl(const ServerOptions& options, Engine& engine, std::function<std::string()> metrics)
      : context{.options = prepared(options),
                .keys = CurrentKeys(options.keys),
                .proxies = TrustedProxies(options.trusted_proxies),
                .rates = make_rate_limiter(),
                .engine = engine,
                .keeper = ModelKeeper(engine),
                .router = {},
                .cors = CorsPolicy(options.cors_origins),
                .tls = tls_credentials(options),
                .admission = Admission({.max_in_flight = options.admission.max_in_flight,
                                        .max_choices = choices_limit(options.admission, engine),
                                        .max_stop_strings = options.admission.max_stop_strings},
                                       clock),
                .requests = RequestLog(static_cast<std::size_t>(options.keep_requests), options.listener),
                .workers = net::thread_pool(static_cast<std::size_t>(options.worker_threads))} {
    add_openai_routes(context.router, engine, options.sampling_defaults,
                      choices_limit(options.admission, engine));
    add_responses_routes(context.router, engine, options.sampling_defaults);
    add_embedding_routes(context.router, engine);
    add_rerank_routes(context.router, engine);
    add_tokenize_routes(context.router, engine, context.keeper);
    add_anthropic_routes(context.router, engine, context.keeper, options.sampling_defaults);
    add_ollama_routes(context.router, engine, context.keeper, options.sampling_defaults);
    add_page_routes(context.router);
    add_request_routes(context.router, context.requests);
    add_operations_routes(context.router, engine,
                          {.metrics = std::move(metrics),
                           .draining = [this] { return context.draining.load(); },
                           .flight = options.flight,
                           .throughput = options.throughput});
    add_log_routes(context.router);
    add_websocket_route(context.router);
    add_openapi_route(context.router, !options.keys.empty());
    for (int i = 0; i < options.io_threads; ++i) io.push_back(std::make_unique<IoThread>());
  }

  tcp::endpoint resolve();
  void listen();
  template <class Acceptor>
  net::awaitable<void> accept(Acceptor& listener);
  void serve(StreamSocket socket, std::string peer);
  void stop_accepting();

  SteadyClock clock;
  ServerContext context;
  ConnectionSet connections;
  std::atomic<int> turned_away{0};
  std::vector<std::unique_ptr<IoThread>> io;
  // Both run on the first I/O thread.
  std::optional<tcp::acceptor> acceptor;
  std::optional<UnixListener> unix_listener;
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

template <class Acceptor>
net::awaitable<void> Server::Impl::accept(Acceptor& listener) {
  net::steady_timer pause(io.front()->context);
  bool complained = false;
  while (listener.is_open()) {
    IoThread& home = *io[next_io++ % io.size()];
    auto [error, socket] =
        co_await listener.async_accept(net::any_io_executor(home.context.get_executor()), kAsTuple);
    if (!error) {
      complained = false;
      std::string peer = peer_of(socket);
      serve(std::move(socket), std::move(peer));
      continue;
    }
    if (!listener.is_open()) break;
    // Usually out of file descriptors: connections that end give some back.
    if (!std::exchange(complained, true))
      log::error("connections cannot be accepted for now: {}", error.message());
    pause.expires_after(kAcceptPause);
    co_await pause.async_wait(kAsTuple);
  }
}

void Server::Impl::serve(StreamSocket socket, std::string peer) {
  const net::any_io_executor executor = socket.get_executor();
  auto connection = std::make_shared<Connection>(std::move(socket), std::move(peer), context);
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
    if (acceptor) acceptor->close(ignored);
    if (unix_listener) unix_listener->acceptor().close(ignored);
  });
}

Server::Server(const ServerOptions& options, Engine& engine, std::function<std::string()> metrics) {
  check(options);
  impl_ = std::make_unique<Impl>(options, engine, std::move(metrics));
}

Server::~Server() { stop(); }

void Server::start() {
  const ServerOptions& options = impl_->context.options;
  if (options.listen_tcp) impl_->listen();
  net::io_context& first = impl_->io.front()->context;
  if (!options.unix_socket.empty()) {
    impl_->unix_listener.emplace(first, options.unix_socket, static_cast<mode_t>(options.unix_socket_mode));
  }
  impl_->started = true;
  const auto end_loudly = [](const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);  // a bug
  };
  if (impl_->acceptor) net::co_spawn(first, impl_->accept(*impl_->acceptor), end_loudly);
  if (impl_->unix_listener) {
    net::co_spawn(first, impl_->accept(impl_->unix_listener->acceptor()), end_loudly);
  }
  for (const auto& io : impl_->io) {
    io->thread = std::thread([&context = io->context] {
      name_this_thread("mlxs-io");
      context.run();
    });
  }
}

std::uint16_t Server::port() const { return impl_->port; }

void Server::reload_tls() {
  if (impl_->context.tls) impl_->context.tls->reload();
}

void Server::replace_keys(ApiKeys keys) { impl_->context.keys.replace(std::move(keys)); }

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
  impl_->unix_listener.reset();
}

}  // namespace mlxs
