#include "serve/http2_stream.h"

#include <fmt/format.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/log.h"
#include "serve/error_response.h"
#include "serve/exchange_record.h"
#include "serve/http2.h"
#include "serve/http_text.h"
#include "serve/offload.h"

namespace mlxs {
namespace {

constexpr std::size_t kFieldCost = 32;  // what RFC 9113 adds to each field's size
constexpr int kFarTooMany = 4;          // times the limit: not even read on
constexpr int kRequestTimeout = 408;
constexpr int kRequestHeaderFieldsTooLarge = 431;

nghttp2_nv field(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};  // copied by nghttp2
}

ssize_t read_body(nghttp2_session* frames, std::int32_t id, std::uint8_t* into, std::size_t size,
                  std::uint32_t* flags, nghttp2_data_source* source, void*) {
  auto& stream = *static_cast<Http2Stream*>(source->ptr);
  const std::size_t taken = stream.take(into, size);
  if (stream.taken()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream.ends_with_timing()) {
      const std::string timing = timing_now(stream.request());
      const nghttp2_nv trailer = field("x-mlxs-timing", timing);
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      nghttp2_submit_trailer(frames, id, &trailer, 1);
    }
  }
  if (taken == 0 && !stream.taken()) return NGHTTP2_ERR_DEFERRED;
  return static_cast<ssize_t>(taken);
}

}  // namespace

Http2Stream::Http2Stream(Http2Session& session, std::int32_t id)
    : session_(session),
      id_(id),
      wakeup_(std::make_shared<Wakeup>(session_.executor())),
      opened_(std::chrono::steady_clock::now()) {
  request_.peer = session_.peer();
}

Http2Stream::~Http2Stream() { wakeup_->close(); }

// ---------------------------------------------------------------- what arrives

bool Http2Stream::add_header(std::string_view name, std::string_view value) {
  const std::size_t limit = session_.context().options.max_header_bytes;
  header_bytes_ += name.size() + value.size() + kFieldCost;
  if (header_bytes_ > limit) return header_bytes_ <= kFarTooMany * limit;
  if (name == ":method") {
    request_.method = value;
  } else if (name == ":path") {
    target_ = value;
  } else if (name == ":authority") {
    request_.headers.emplace_back("host", value);
  } else if (!name.starts_with(':')) {
    request_.headers.emplace_back(name, value);
  }
  return true;
}

void Http2Stream::end_headers() {
  const ServerOptions& options = session_.context().options;
  identify(session_.context(), request_);
  headers_ = common_headers(session_.context(), request_);
  request_.peer = session_.context().proxies.client_of(session_.peer(), request_);
  if (header_bytes_ > options.max_header_bytes) {
    refuse(Error(ErrorCode::kTooLarge,
                 fmt::format("the header is larger than {} bytes", options.max_header_bytes)),
           kRequestHeaderFieldsTooLarge);
  } else if (lower_case(request_.header("expect")) == "100-continue") {
    const nghttp2_nv status = field(":status", "100");
    nghttp2_submit_headers(session_.frames(), NGHTTP2_FLAG_NONE, id_, nullptr, &status, 1, nullptr);
  }
}

void Http2Stream::add_body(std::string_view bytes) {
  if (responded_) return;  // refused: what still comes is not read
  const std::size_t limit = session_.context().options.max_body_bytes;
  if (request_.body.size() + bytes.size() > limit) {
    refuse(Error(ErrorCode::kTooLarge, fmt::format("the body is larger than {} bytes", limit), "send less"),
           0);
    return;
  }
  request_.body += bytes;
}

void Http2Stream::complete() {
  complete_ = true;
  if (responded_) return;
  session_.spawn(run(shared_from_this()));
}

net::awaitable<void> Http2Stream::run(std::shared_ptr<Http2Stream> self) {
  try {
    co_await serve();
  } catch (const std::exception& error) {
    log::error("{}: a stream failed: {}", self->request_.id, error.what());
    if (!gone_) session_.reset(id_, NGHTTP2_INTERNAL_ERROR);
  }
  const TimePoint written = std::chrono::steady_clock::now();
  while (!gone_ && !taken()) co_await wakeup_->wait();  // its record counts what was sent
  socket_wait_ += std::chrono::steady_clock::now() - written;
  end_record();
}

void Http2Stream::end_record() {
  end_exchange(session_.context(), request_,
               {.at = std::chrono::steady_clock::now(),
                .status = status_,
                .client_gone = !taken(),
                .bytes = bytes_taken_,
                .socket_wait_seconds = to_seconds(socket_wait_)});
}

net::awaitable<void> Http2Stream::serve() {
  const std::optional<std::string> path = decode_path(target_);
  if (!path) {
    refuse(Error(ErrorCode::kInvalidArgument,
                 fmt::format("the request target '{}' is malformed", header_value(target_)),
                 "send a path that starts with /"),
           0);
    co_return;
  }
  request_.path = *path;
  request_.query = query_of(target_);
  Prepared prepared;
  if (request_.method != "POST") {
    prepared = prepare_reply(session_.context(), request_, headers_);
  } else {
    auto work = [this] { return prepare_reply(session_.context(), request_, headers_); };
    prepared = co_await offload(session_.context().workers, std::move(work));
    request_.body = {};
  }
  if (gone_) co_return;
  if (auto* response = std::get_if<HttpResponse>(&prepared)) {
    respond(*response);
    co_return;
  }
  std::optional<LiveAnswer> answer(std::move(std::get<LiveAnswer>(prepared)));
  co_await relay(answer, wakeup_, *this);
}

// ---------------------------------------------------------------- what goes out

// length: of a body that is known; else it goes on until the stream ends.
void Http2Stream::submit(const HttpResponse& head, std::optional<std::size_t> length) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string status = fmt::format("{}", head.status);
  const std::string date = http_date(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  const std::string size = fmt::format("{}", length.value_or(0));
  constexpr int kNoContent = 204;
  std::vector<nghttp2_nv> fields = {field(":status", status), field("date", date)};
  if (!head.content_type.empty()) fields.push_back(field("content-type", head.content_type));
  fields.push_back(field("x-request-id", request_.id));
  if (length && head.status != kNoContent) fields.push_back(field("content-length", size));
  ends_with_timing_ = !length && wants_timing(request_);
  if (ends_with_timing_) fields.push_back(field("trailer", "x-mlxs-timing"));
  for (const auto& [name, value] : head.headers) fields.push_back(field(name, value));
  for (const auto& [name, value] : headers_) fields.push_back(field(name, value));

  const bool no_body = request_.method == "HEAD" || length == std::size_t{0};
  nghttp2_data_provider body{};
  body.source.ptr = this;
  body.read_callback = read_body;
  responded_ = true;
  status_ = head.status;
  nghttp2_submit_response(session_.frames(), id_, fields.data(), fields.size(), no_body ? nullptr : &body);
  if (no_body) out_last_ = true;
  session_.flush();
}

void Http2Stream::respond(const HttpResponse& response) {
  submit(response, response.body.size());
  if (request_.method != "HEAD") append(response.body);
  out_last_ = true;
}

void Http2Stream::append(std::string_view bytes) {
  if (unsent() == 0) last_taken_ = std::chrono::steady_clock::now();  // it has only begun to wait
  if (out_taken_ == out_.size() || out_taken_ > session_.context().options.stream_buffer_bytes) {
    out_.erase(0, out_taken_);
    out_taken_ = 0;
  }
  out_ += bytes;
}

net::awaitable<void> Http2Stream::send(const HttpResponse& response) {
  if (!gone_) respond(response);
  co_return;
}

net::awaitable<void> Http2Stream::send_piece(const HttpResponse* head, const std::string& piece, bool last) {
  if (gone_) co_return;
  if (head != nullptr) submit(*head, std::nullopt);
  append(piece);
  out_last_ = last;
  if (head == nullptr) nghttp2_session_resume_data(session_.frames(), id_);  // no error if it is not deferred
  session_.flush();
  if (!full()) co_return;
  const TimePoint filled = std::chrono::steady_clock::now();
  while (full() && !gone_ && !cancelled_) co_await wakeup_->wait();
  socket_wait_ += std::chrono::steady_clock::now() - filled;
}

bool Http2Stream::full() const { return unsent() > session_.context().options.stream_buffer_bytes; }

Duration Http2Stream::keep_alive() const {
  return std::chrono::milliseconds(session_.context().options.keep_alive_ms);
}

std::size_t Http2Stream::take(unsigned char* into, std::size_t size) {
  size = std::min(size, unsent());
  if (size == 0) return 0;
  std::memcpy(into, out_.data() + out_taken_, size);
  const bool was_full = full();
  out_taken_ += size;
  bytes_taken_ += size;
  last_taken_ = std::chrono::steady_clock::now();
  if (taken() || (was_full && !full())) wakeup_->set();
  return size;
}

// ---------------------------------------------------------------- what ends it

void Http2Stream::close() {
  gone_ = true;
  wakeup_->set();
}

void Http2Stream::cancel() {
  cancelled_ = true;
  if (!complete_) {
    refuse(Error(ErrorCode::kUnavailable, "the server is shutting down", "send the request again"), 0);
  }
  wakeup_->set();
}

void Http2Stream::refuse(const Error& error, int status) {
  if (responded_ || gone_) return;
  respond(error_response(error, status));
  if (!complete_) end_record();  // nobody else does
}

void Http2Stream::time_out() {
  const int limit = session_.context().options.request_timeout_ms;
  if (responded_) {
    session_.context().note_slow_reader(request_.peer, session_.context().options.stream_patience_ms());
    session_.reset(id_, NGHTTP2_CANCEL);
  } else {
    refuse(Error(ErrorCode::kTimeout, fmt::format("the request was not complete within {} ms", limit)),
           kRequestTimeout);
  }
}

bool Http2Stream::lags(TimePoint now) const {
  const ServerOptions& options = session_.context().options;
  if (!complete_ && !responded_) return now - opened_ > std::chrono::milliseconds(options.request_timeout_ms);
  return unsent() > 0 && now - last_taken_ > std::chrono::milliseconds(options.stream_patience_ms());
}

}  // namespace mlxs
