#include "telemetry/flight_recorder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <span>

#include "base/clock.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::size_t kSpansAStep = 32;  // on average, as far back as the steps go
constexpr std::size_t kEvents = 1 << 14;
constexpr std::size_t kMostSteps = 1'000'000;
constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

std::int64_t ns(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}
std::int64_t ns(double seconds) { return static_cast<std::int64_t>(seconds * 1e9); }

std::int64_t clock_ns(clockid_t clock) {  // also in a handler of signals
  timespec now{};
  clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

template <std::size_t N>
void copy_text(std::string_view text, char (&into)[N]) {
  const std::size_t size = std::min(text.size(), N - 1);
  std::memcpy(into, text.data(), size);
  std::memset(into + size, 0, N - size);
}

bool write_all(int file, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(file, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

// Zeroed memory whose pages exist only once they are written.
template <class Entry>
class Ring {
 public:
  explicit Ring(std::size_t entries) : entries_(entries) {
    void* memory = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<Entry*>(memory);
  }
  ~Ring() { munmap(data_, bytes()); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::size_t size() const { return entries_; }
  Entry& at(std::uint64_t index) { return data_[index % entries_]; }
  // What has been written at some time, of `next` in all.
  std::span<const Entry> used(std::uint64_t next) const {
    return {data_, static_cast<std::size_t>(std::min<std::uint64_t>(next, entries_))};
  }

 private:
  std::size_t bytes() const { return entries_ * sizeof(Entry); }
  std::size_t entries_;
  Entry* data_ = nullptr;
};

// What a handler of crashes can reach.
struct CrashTarget {
  std::atomic<const FlightRecorder*> recorder{nullptr};
  char path[1024] = {};
  struct sigaction before[std::size(kCrashes)] = {};
};
CrashTarget crash_target;

}  // namespace

struct FlightRecorder::Rings {
  explicit Rings(std::size_t count) : steps(count), spans(count * kSpansAStep), events(kEvents) {}
  Ring<FlightStep> steps;
  Ring<FlightSpan> spans;
  Ring<FlightEvent> events;
};

FlightRecorder::FlightRecorder(FlightOptions options, std::string_view version)
    : options_(std::move(options)) {
  if (options_.steps < 1 || options_.steps > kMostSteps) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("flight steps = {}", options_.steps),
                fmt::format("1 … {}", kMostSteps), "flight_steps");
  }
  rings_ = std::make_unique<Rings>(options_.steps);
  base_.header_bytes = sizeof(FlightHeader);
  base_.step_bytes = sizeof(FlightStep);
  base_.span_bytes = sizeof(FlightSpan);
  base_.event_bytes = sizeof(FlightEvent);
  base_.step_ring = rings_->steps.size();
  base_.span_ring = rings_->spans.size();
  base_.event_ring = rings_->events.size();
  base_.start_steady_ns = clock_ns(CLOCK_MONOTONIC);
  base_.start_unix_ns = clock_ns(CLOCK_REALTIME);
  base_.pid = getpid();
  copy_text(version, base_.version);
}

FlightRecorder::~FlightRecorder() {
  const FlightRecorder* self = this;
  if (!crash_target.recorder.compare_exchange_strong(self, nullptr)) return;
  for (std::size_t i = 0; i < std::size(kCrashes); ++i) {
    sigaction(kCrashes[i], &crash_target.before[i], nullptr);
  }
}

std::uint16_t FlightRecorder::model_index(std::string_view model) {
  const auto same = [&](int index) {
    const char* name = base_.model[index];
    return std::strncmp(name, model.data(), std::min(model.size(), sizeof(base_.model[0]) - 1)) == 0 &&
           std::strlen(name) == std::min(model.size(), sizeof(base_.model[0]) - 1);
  };
  const int known = models_.load(std::memory_order_acquire);
  for (int i = 0; i < known; ++i) {
    if (same(i)) return static_cast<std::uint16_t>(i);
  }
  while (naming_.test_and_set(std::memory_order_acquire)) {  // only when a model is met for the first time
  }
  int index = models_.load(std::memory_order_relaxed);
  for (int i = known; i < index; ++i) {
    if (same(i)) index = i;
  }
  if (index == static_cast<int>(kFlightModels)) --index;
  if (index == models_.load(std::memory_order_relaxed)) {
    copy_text(model, base_.model[index]);
    models_.store(index + 1, std::memory_order_release);
  }
  naming_.clear(std::memory_order_release);
  return static_cast<std::uint16_t>(index);
}

void FlightRecorder::on_step(const StepRecord& record) {
  const std::uint64_t first = next_span_.fetch_add(record.spans.size(), std::memory_order_relaxed);
  for (std::size_t i = 0; i < record.spans.size(); ++i) {
    const StepSpanRecord& span = record.spans[i];
    rings_->spans.at(first + i) = {.request = span.request, .start = span.start, .tokens = span.tokens};
  }
  const std::uint64_t index = next_step_.fetch_add(1, std::memory_order_relaxed);
  FlightStep& out = rings_->steps.at(index);
  const std::atomic_ref<std::uint64_t> sequence(out.sequence);
  sequence.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  out.started_ns = ns(record.started);
  out.step = record.step;
  out.plan_ns = ns(record.plan_seconds);
  out.launch_ns = ns(record.launch_seconds);
  out.sample_ns = ns(record.sample_seconds);
  out.wait_ns = ns(record.wait_seconds);
  out.run_ns = ns(record.run_seconds);
  out.publish_ns = ns(record.commit_seconds);
  out.mask_ns = ns(record.mask_seconds);
  std::ranges::copy(record.blocked_tokens, out.blocked_tokens);
  out.first_span = first;
  out.spans = static_cast<std::int32_t>(record.spans.size());
  out.prefill_tokens = record.prefill_tokens;
  out.decode_rows = record.decode_rows;
  out.running = record.running;
  out.waiting = record.waiting;
  out.paused = record.paused;
  out.kv_pages_free = record.kv_pages_free;
  out.model = model_index(record.model);
  out.failed = record.failed ? 1 : 0;
  sequence.store(index + 1, std::memory_order_release);
}

void FlightRecorder::on_request(const RequestEvent& event) {
  const std::uint64_t index = next_event_.fetch_add(1, std::memory_order_relaxed);
  FlightEvent& out = rings_->events.at(index);
  const std::atomic_ref<std::uint64_t> sequence(out.sequence);
  sequence.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  out.request = event.request;
  out.at_ns = ns(event.at);
  out.model = model_index(event.model);
  out.kind = static_cast<std::uint8_t>(event.kind);
  copy_text(event.request_id, out.id);
  sequence.store(index + 1, std::memory_order_release);
}

FlightHeader FlightRecorder::header(std::string_view reason) const {
  FlightHeader header = base_;
  header.models = models_.load(std::memory_order_acquire);
  header.next_step = next_step_.load(std::memory_order_acquire);
  header.next_span = next_span_.load(std::memory_order_relaxed);
  header.next_event = next_event_.load(std::memory_order_relaxed);
  header.steps = rings_->steps.used(header.next_step).size();
  header.spans = rings_->spans.used(header.next_span).size();
  header.events = rings_->events.used(header.next_event).size();
  header.dumped_steady_ns = clock_ns(CLOCK_MONOTONIC);
  copy_text(reason, header.reason);
  return header;
}

// Safe in a handler of signals, if write() is.
template <class Write>
bool FlightRecorder::emit(std::string_view reason, Write&& write) const {
  const FlightHeader head = header(reason);
  const auto part = [&write](const auto& entries) {
    return write(reinterpret_cast<const char*>(entries.data()), entries.size_bytes());
  };
  return part(std::span(&head, 1)) && part(rings_->steps.used(head.next_step)) &&
         part(rings_->spans.used(head.next_span)) && part(rings_->events.used(head.next_event));
}

std::string FlightRecorder::snapshot(std::string_view reason) const {
  std::string bytes;
  emit(reason, [&bytes](const char* data, std::size_t size) {
    bytes.append(data, size);
    return true;
  });
  return bytes;
}

std::filesystem::path FlightRecorder::dump(std::string_view reason) const {
  const auto failed = [](const std::filesystem::path& path, int code) {
    return Error(ErrorCode::kIo,
                 fmt::format("'{}' cannot be written: {}", path.string(), std::strerror(code)),
                 "choose another folder with --flight-dir", "flight_dir");
  };
  std::error_code error;
  std::filesystem::create_directories(options_.directory, error);
  if (error) throw failed(options_.directory, error.value());
  const std::filesystem::path path =
      options_.directory / fmt::format("flight-{}-{}-{}.bin", base_.pid, dumps_.fetch_add(1), reason);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) throw failed(path, errno);
  const bool written =
      emit(reason, [file](const char* data, std::size_t size) { return write_all(file, data, size); });
  const int code = errno;
  close(file);
  if (!written) throw failed(path, code);
  return path;
}

void FlightRecorder::dump_on_crash() {
  std::error_code error;
  std::filesystem::create_directories(options_.directory, error);
  const auto path = options_.directory / fmt::format("flight-{}-crash.bin", base_.pid);
  if (error || path.string().size() >= sizeof crash_target.path) {
    throw Error(ErrorCode::kIo,
                fmt::format("'{}' cannot be made: {}", options_.directory.string(), error.message()),
                "choose another folder with --flight-dir", "flight_dir");
  }
  copy_text(path.string(), crash_target.path);
  static char stack[64 << 10];  // for a crash because the stack is full, on this thread
  const stack_t alternative{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  sigaltstack(&alternative, nullptr);
  struct sigaction action {};
  action.sa_handler = &on_crash;
  action.sa_flags = SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  crash_target.recorder = this;
  for (std::size_t i = 0; i < std::size(kCrashes); ++i) {
    sigaction(kCrashes[i], &action, &crash_target.before[i]);
  }
}

// Only what POSIX calls async-signal-safe, and atomics.
void FlightRecorder::on_crash(int number) {
  for (std::size_t i = 0; i < std::size(kCrashes); ++i) {  // whatever happens from here on ends the process
    if (kCrashes[i] == number) sigaction(number, &crash_target.before[i], nullptr);
  }
  if (const FlightRecorder* recorder = crash_target.recorder.exchange(nullptr)) {
    const int file = open(crash_target.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file >= 0) {
      recorder->emit("crash",
                     [file](const char* data, std::size_t size) { return write_all(file, data, size); });
      close(file);
      constexpr std::string_view kTold = "crashed; the last steps are in ";
      write_all(STDERR_FILENO, kTold.data(), kTold.size());
      write_all(STDERR_FILENO, crash_target.path, std::strlen(crash_target.path));
      write_all(STDERR_FILENO, "\n", 1);
    }
  }
  raise(number);  // blocked until this returns
}

}  // namespace mlxs
