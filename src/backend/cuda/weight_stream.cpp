#include "backend/cuda/weight_stream.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "base/thread_name.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr int kSlots = 2;  // of a thread
constexpr int kMostReaders = 16;
// As measured: of 1 MB copies are slower, of 4 MB pinning takes longer.
constexpr std::size_t kPieceBytes = std::size_t{2} << 20;

std::size_t piece_of(const CopyStream* copies, int threads) {
  if (copies == nullptr) return kPieceBytes;
  return std::clamp<std::size_t>(copies->staging_bytes() / static_cast<std::size_t>(threads * kSlots),
                                 std::size_t{128} << 10, std::size_t{32} << 20);
}

// What a thread keeps while it runs.
class Slots {
 public:
  explicit Slots(const DeviceBuffer& staging) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "loading weights");
    std::byte* at = staging.data();
    for (Slot& slot : slots_) {
      check(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming), "loading weights");
      slot.bytes = staging.bytes() / kSlots;
      slot.staging = std::exchange(at, at + slot.bytes);
    }
  }
  ~Slots() {
    cudaStreamSynchronize(stream_);
    for (Slot& slot : slots_) cudaEventDestroy(slot.done);
    cudaStreamDestroy(stream_);
  }
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;

  cudaStream_t stream() const { return stream_; }
  struct Slot {
    PinnedBuffer pinned;
    std::byte* staging = nullptr;
    std::size_t bytes = 0;  // of it
    DeviceBuffer own;       // of a piece that is larger than most
    cudaEvent_t done{};
  };
  Slot& next(std::size_t bytes) {
    turn_ = (turn_ + 1) % kSlots;
    Slot& slot = slots_[static_cast<std::size_t>(turn_)];
    check(cudaEventSynchronize(slot.done), "loading weights");
    if (bytes > slot.bytes) {
      slot.own = {};
      slot.own = DeviceBuffer(bytes, "loading weights");
      slot.staging = slot.own.data();
      slot.bytes = bytes;
    }
    return slot;
  }

 private:
  cudaStream_t stream_{};
  std::array<Slot, kSlots> slots_;
  int turn_ = 0;
};

}  // namespace

void WeightStream::Batch::wait_filled() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return unfilled_ == 0; });
}

void WeightStream::Batch::settle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return unsent_ == 0; });
  given_up_ = true;
  if (!std::exchange(settled_, true)) cudaDeviceSynchronize();
}

bool WeightStream::Batch::failed() {
  const std::lock_guard lock(mutex_);
  return failure_ != nullptr;
}

void WeightStream::Queue::copy(void* to, const void* from, std::size_t bytes) const {
  if (copies != nullptr) return copies->upload(to, from, bytes, stream);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "loading weights");
}

WeightStream::WeightStream(int device, int threads, CopyStream* copies)
    : device_(device),
      most_threads_(std::clamp(threads, 1, kMostReaders)),
      copies_(copies),
      piece_bytes_(piece_of(copies, most_threads_)) {}

WeightStream::~WeightStream() { join(); }

std::shared_ptr<WeightStream::Batch> WeightStream::batch() {
  return batches_.emplace_back(std::make_shared<Batch>());
}

void WeightStream::add(Batch& batch, Piece piece) {
  const std::lock_guard lock(mutex_);
  if (threads_.empty()) began_ = std::chrono::steady_clock::now();
  if (static_cast<std::size_t>(idle_) <= waiting_.size() &&
      threads_.size() < static_cast<std::size_t>(most_threads_)) {
    start_thread();
  }
  {
    const std::lock_guard batch_lock(batch.mutex_);
    ++batch.unfilled_;
    ++batch.unsent_;
  }
  bytes_ += piece.bytes;
  waiting_.push_back({&batch, std::move(piece)});
  changed_.notify_one();
}

// Should there be no memory for one more, those that there are do.
void WeightStream::start_thread() {
  try {
    // On this thread, so that device() knows of it.
    auto staging = std::make_shared<DeviceBuffer>(kSlots * piece_bytes_, "loading weights");
    threads_.emplace_back([this, staging] { run(*staging); });
  } catch (const Error&) {
    if (threads_.empty()) throw;  // nobody would take what is added
  }
}

void WeightStream::run(const DeviceBuffer& staging) {
  name_this_thread("mlxs-load");
  std::unique_ptr<Slots> slots;
  for (;;) {
    Waiting now{};
    {
      std::unique_lock lock(mutex_);
      ++idle_;
      changed_.wait(lock, [this] { return !waiting_.empty() || stopping_; });
      --idle_;
      if (waiting_.empty()) return;
      now = std::move(waiting_.front());
      waiting_.pop_front();
    }
    const auto count = [&now](int Batch::*which) {
      const std::lock_guard lock(now.batch->mutex_);
      if (--(now.batch->*which) == 0) now.batch->changed_.notify_all();
    };
    bool filled = false;
    try {
      if (!now.batch->failed()) {
        if (!slots) {
          use_device(device_);
          slots = std::make_unique<Slots>(staging);
        }
        Slots::Slot& slot = slots->next(now.piece.bytes);
        std::byte* const pinned = slot.pinned.reserve(std::max(now.piece.bytes, piece_bytes_));
        now.piece.fill(pinned);
        filled = true;
        count(&Batch::unfilled_);
        now.piece.send({slots->stream(), copies_}, pinned, slot.staging);
        check(cudaEventRecord(slot.done, slots->stream()), "loading weights");
      }
    } catch (...) {
      const std::lock_guard lock(now.batch->mutex_);
      if (now.batch->failure_ == nullptr) now.batch->failure_ = std::current_exception();
    }
    if (!filled) count(&Batch::unfilled_);
    count(&Batch::unsent_);
  }
}

void WeightStream::join() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();  // which waits for what its stream has queued
  threads_.clear();
  stopping_ = false;
  for (const auto& batch : batches_) {
    const std::lock_guard lock(batch->mutex_);
    batch->settled_ = true;
  }
  batches_.clear();
}

void WeightStream::finish() {
  if (batches_.empty()) return;
  const auto batches = batches_;
  join();
  if (copies_ != nullptr) copies_->settle();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
  const double bytes = static_cast<double>(std::exchange(bytes_, 0));
  log::debug("{:.2f} GB of weights in {:.3f} s, {:.1f} GB/s", bytes * 1e-9, took.count(),
             bytes * 1e-9 / took.count());
  for (const auto& batch : batches) {
    if (batch->failure_ != nullptr && !batch->given_up_) std::rethrow_exception(batch->failure_);
  }
}

std::size_t WeightStream::staging_bytes() const { return threads_.size() * kSlots * piece_bytes_; }

}  // namespace mlxs::cuda
