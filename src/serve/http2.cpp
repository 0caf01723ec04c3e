#include "serve/http2.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <utility>
#include <vector>

#include "base/log.h"
#include "serve/http2_stream.h"

namespace mlxs {
namespace {

using boost::system::error_code;

constexpr std::size_t kReadSize = 16 << 10;
constexpr std::size_t kOneWrite = 64 << 10;
constexpr std::int32_t kStreamWindow = 256 << 10;  // of a request's body
constexpr std::int32_t kConnectionWindow = 1 << 20;
constexpr std::size_t kBodies =
    4;  // the largest body, times: what one connection's unfinished requests may hold
constexpr int kMostContinuations = 16;   // frames of one header; each may carry 16 KiB
constexpr double kResetBurst = 400;      // streams that end early: so many at once,
constexpr double kResetsPerSecond = 40;  // and so many a second for good
constexpr int kTickMs = 1000;
constexpr auto kCancelTime = std::chrono::seconds(1);  // for cancelled streams to tell their clients

std::string_view text(const std::uint8_t* bytes, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

bool ends_stream(const nghttp2_frame* frame) { return (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0; }

}  // namespace

// What nghttp2 calls while it reads and writes. None of them may throw.
struct Http2Session::Callbacks {
  static Http2Session& self(void* user) { return *static_cast<Http2Session*>(user); }
  static Http2Stream* stream(void* user, std::int32_t id) {
    const auto found = self(user).streams_.find(id);
    return found == self(user).streams_.end() ? nullptr : found->second.get();
  }

  // nghttp2 itself does not mind how many frames a header comes in (RFC 9113, section 10.5.1).
  static int begin_frame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) {
    Http2Session& session = self(user);
    if (head->type == NGHTTP2_HEADERS) session.check_order(head->stream_id);
    if (head->type != NGHTTP2_CONTINUATION) {
      session.continuations_ = 0;
    } else if (++session.continuations_ > kMostContinuations) {
      session.end(NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return 0;
  }

  static int begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) self(user).open_stream(frame->hd.stream_id);
    return 0;
  }

  static int header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                    std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t,
                    void* user) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;  // trailers: nothing asks for them
    Http2Stream* const found = stream(user, frame->hd.stream_id);
    if (found == nullptr || found->add_header(text(name, name_size), text(value, value_size))) return 0;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // resets the stream
  }

  static int frame_received(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    Http2Stream* const found = stream(user, frame->hd.stream_id);
    if (found == nullptr) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) found->end_headers();
    if (ends_stream(frame)) found->complete();
    return 0;
  }

  static int data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* bytes,
                  std::size_t size, void* user) {
    if (Http2Stream* const found = stream(user, id)) {
      found->add_body(text(bytes, size));
      self(user).check_bodies(*found);
    }
    return 0;
  }

  static int frame_sent(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) || !ends_stream(frame))
      return 0;
    Http2Stream* const found = stream(user, frame->hd.stream_id);
    // Answered before it was complete: the client need not go on.
    if (found != nullptr && !found->is_complete()) self(user).reset(found->id(), NGHTTP2_NO_ERROR);
    return 0;
  }

  static int stream_closed(nghttp2_session*, std::int32_t id, std::uint32_t, void* user) {
    self(user).close_stream(id);
    return 0;
  }
};

Http2Session::Http2Session(std::shared_ptr<Transport> transport, ServerContext& context,
                           boost::beast::flat_buffer beginning)
    : transport_(std::move(transport)),
      context_(context),
      executor_(transport_->get_executor()),
      buffer_(std::move(beginning)),
      write_deadline_(*transport_),
      tick_(executor_),
      writable_(std::make_shared<Wakeup>(executor_)),
      retired_(std::make_shared<Wakeup>(executor_)),
      idle_since_(std::chrono::steady_clock::now()) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, Callbacks::begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Callbacks::begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::frame_received);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::data);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, Callbacks::frame_sent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::stream_closed);
  const int failed = nghttp2_session_server_new(&frames_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
  if (failed != 0) throw Error(ErrorCode::kOutOfMemory, "there is no memory for a connection");

  const std::array<nghttp2_settings_entry, 3> settings{{
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, static_cast<std::uint32_t>(context_.options.max_streams)},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(context_.options.max_header_bytes)},
  }};
  nghttp2_submit_settings(frames_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(frames_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
}

Http2Session::~Http2Session() {
  writable_->close();
  retired_->close();
  nghttp2_session_del(frames_);
}

void Http2Session::drain() {
  nghttp2_submit_goaway(frames_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(frames_),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  flush();
}

void Http2Session::cancel() {
  drain();
  cancelled_at_ = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<Http2Stream>> open;
  for (const auto& [id, stream] : streams_) open.push_back(stream);
  for (const auto& stream : open) stream->cancel();
  if (stalled_) abandon();
}

// ---------------------------------------------------------------- the three coroutines

net::awaitable<void> Http2Session::run() {
  spawn(write());
  spawn(watch());
  co_await read();
  ended_ = true;
  for (const auto& [id, stream] : streams_) stream->close();
  streams_.clear();
  flush();
  tick_.cancel();
  while (running_ > 0) co_await retired_->wait();
  if (!gone_) co_await transport_->finish(blamed_);
}

void Http2Session::spawn(net::awaitable<void> work) {
  ++running_;
  net::co_spawn(executor_, std::move(work), [self = shared_from_this()](const std::exception_ptr& failure) {
    --self->running_;
    self->retired_->set();
    if (!failure) return;
    log::error("an HTTP/2 connection failed");
    self->abandon();
  });
}

net::awaitable<void> Http2Session::read() {
  for (;;) {
    if (buffer_.size() > 0) {
      const net::const_buffer bytes = buffer_.data();
      const ssize_t used =
          nghttp2_session_mem_recv(frames_, static_cast<const std::uint8_t*>(bytes.data()), bytes.size());
      buffer_.clear();
      if (used < 0) {
        log::debug("HTTP/2 with {}: {}", peer(), nghttp2_strerror(static_cast<int>(used)));
        end(used == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
      }
      flush();
    }
    if (ended_ || gone_ || nghttp2_session_want_read(frames_) == 0) co_return;
    const auto [error, size] = co_await transport_->async_read_some(
        buffer_.prepare(kReadSize), net::bind_cancellation_slot(read_cancel_.slot(), kAsTuple));
    buffer_.commit(size);
    if (!error) continue;
    if (!ended_ && nghttp2_session_want_read(frames_) != 0) abandon();  // else it was woken: all is said
    co_return;
  }
}

net::awaitable<void> Http2Session::write() {
  std::string out;
  while (!gone_) {
    out.clear();
    ssize_t size = 1;
    while (size > 0 && out.size() < kOneWrite) {
      const std::uint8_t* bytes = nullptr;
      size = nghttp2_session_mem_send(frames_, &bytes);
      if (size > 0) out.append(text(bytes, static_cast<std::size_t>(size)));
    }
    if (size < 0) {
      abandon();
    } else if (!out.empty()) {
      const bool written = co_await write_all(out);
      if (!written) abandon();
    } else {
      if (ended_) co_return;
      if (nghttp2_session_want_read(frames_) == 0) read_cancel_.emit(net::cancellation_type::terminal);
      co_await writable_->wait();
    }
  }
}

net::awaitable<bool> Http2Session::write_all(std::string_view bytes) {
  error_code error;
  bytes.remove_prefix(transport_->write_now(net::buffer(bytes), error));
  if (bytes.empty() || error) co_return !error;
  stalled_ = true;
  while (!bytes.empty() && !error) {
    write_deadline_.arm(context_.options.stream_patience_ms());  // anew whenever the reader takes something
    const auto [failed, size] = co_await transport_->async_write_some(net::buffer(bytes), kAsTuple);
    bytes.remove_prefix(size);
    error = failed;
  }
  if (write_deadline_.expired()) {
    context_.note_slow_reader(transport_->peer(), context_.options.stream_patience_ms());
  }
  write_deadline_.disarm();
  stalled_ = false;
  co_return !error;
}

net::awaitable<void> Http2Session::watch() {
  const ServerOptions& options = context_.options;
  const int shortest =
      std::min({options.idle_timeout_ms, options.request_timeout_ms, options.stream_patience_ms()});
  const auto tick = std::chrono::milliseconds(std::clamp(shortest / 4, 1, kTickMs));
  while (!ended_ && !gone_) {
    tick_.expires_after(tick);
    co_await tick_.async_wait(kAsTuple);
    if (!ended_ && !gone_) look_for_laggards();
  }
}

void Http2Session::look_for_laggards() {
  const TimePoint now = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<Http2Stream>> late;
  for (const auto& [id, stream] : streams_) {
    if (stream->lags(now)) late.push_back(stream);
  }
  for (const auto& stream : late) stream->time_out();
  if (!streams_.empty()) idle_since_ = now;
  if (now - idle_since_ > std::chrono::milliseconds(context_.options.idle_timeout_ms)) end(NGHTTP2_NO_ERROR);
  if (cancelled_at_ && now - *cancelled_at_ > kCancelTime) end(NGHTTP2_NO_ERROR);
}

// ---------------------------------------------------------------- streams

void Http2Session::open_stream(std::int32_t id) {
  // Coroutines of streams that the client gave up may still hold a worker: not more than that at once.
  if (running_ >= 2 * static_cast<std::size_t>(context_.options.max_streams)) {
    reset(id, NGHTTP2_REFUSED_STREAM);
    count_reset();
    return;
  }
  streams_.emplace(id, std::make_shared<Http2Stream>(*this, id));
}

void Http2Session::close_stream(std::int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  const std::shared_ptr<Http2Stream> stream = std::move(found->second);
  streams_.erase(found);
  if (!stream->taken()) count_reset();
  stream->close();
}

// A new stream's number must be larger than all before (RFC 9113, section 5.1.1). nghttp2 takes a smaller one
// for a stream that was closed meanwhile, and ignores it.
void Http2Session::check_order(std::int32_t id) {
  if (id > newest_) {
    newest_ = id;
    seen_[next_seen_++ % seen_.size()] = id;
  } else if (!streams_.contains(id) && std::find(seen_.begin(), seen_.end(), id) == seen_.end()) {
    end(NGHTTP2_PROTOCOL_ERROR);
  }
}

// Streams that are opened and given up in a hurry cost the server more than the client (CVE-2023-44487), also
// where the client makes the server reset them.
void Http2Session::count_reset() {
  const TimePoint now = std::chrono::steady_clock::now();
  resets_ = std::max(0.0, resets_ - to_seconds(now - last_reset_) * kResetsPerSecond) + 1;
  last_reset_ = now;
  if (resets_ > kResetBurst) end(NGHTTP2_ENHANCE_YOUR_CALM);
}

void Http2Session::check_bodies(const Http2Stream& newest) {
  std::size_t held = 0;
  for (const auto& [id, stream] : streams_) held += stream->body_size();
  if (held > kBodies * context_.options.max_body_bytes) reset(newest.id(), NGHTTP2_ENHANCE_YOUR_CALM);
}

void Http2Session::reset(std::int32_t id, std::uint32_t code) {
  nghttp2_submit_rst_stream(frames_, NGHTTP2_FLAG_NONE, id, code);
  flush();
}

void Http2Session::end(std::uint32_t code) {
  if (ended_) return;
  nghttp2_session_terminate_session(frames_, code);
  flush();
  ended_ = true;
  blamed_ = code != NGHTTP2_NO_ERROR;
  read_cancel_.emit(net::cancellation_type::terminal);
}

void Http2Session::abandon() {
  gone_ = true;
  transport_->close();
  flush();
  tick_.cancel();
}

}  // namespace mlxs
