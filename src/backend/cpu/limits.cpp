#include "backend/limits.h"

#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/limits_kernels.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using Seconds = std::chrono::duration<double>;

// Runs work(thread) on all threads from one starting line; the best rate of several tries: other load only
// slows it.
double best_rate(int threads, int tries, const std::function<double(int)>& work) {
  double best = 0;
  for (int attempt = 0; attempt < tries; ++attempt) {
    std::chrono::steady_clock::time_point started;
    std::barrier line(threads, [&]() noexcept { started = std::chrono::steady_clock::now(); });
    std::vector<double> done(static_cast<std::size_t>(threads));
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        line.arrive_and_wait();
        done[static_cast<std::size_t>(t)] = work(t);
      });
    }
    for (std::thread& worker : workers) worker.join();
    const double seconds = Seconds(std::chrono::steady_clock::now() - started).count();
    double total = 0;
    for (const double part : done) total += part;
    best = std::max(best, total / seconds);
  }
  return best;
}

double read_bandwidth(int threads, [[maybe_unused]] cpu::Isa isa) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    throw Error(ErrorCode::kOutOfMemory, "cannot allocate 1 GiB to measure the read bandwidth");
#ifdef MADV_HUGEPAGE
  madvise(memory, kBytes, MADV_HUGEPAGE);
#endif
  auto* bytes = static_cast<std::byte*>(memory);
  for (std::size_t i = 0; i < kBytes; i += 64)
    bytes[i] = static_cast<std::byte>(i >> 6);  // every page its own
  const std::size_t share = kBytes / static_cast<std::size_t>(threads) / 4096 * 4096;
  volatile std::uint64_t sink = 0;
  const double rate = best_rate(threads, 5, [&](int thread) {
    const std::byte* begin = bytes + share * static_cast<std::size_t>(thread);
#if defined(__x86_64__)
    if (isa >= cpu::Isa::kAvx512) {
      sink = cpu::read_stream_avx512(begin, share);
      return static_cast<double>(share);
    }
#endif
    sink = cpu::read_stream_portable(begin, share);
    return static_cast<double>(share);
  });
  munmap(memory, kBytes);
  return rate * 1e-9;
}

}  // namespace

double measure_read_bandwidth(int threads) { return read_bandwidth(threads, cpu::choose_isa()); }

MachineLimits measure_limits(int threads) {
  const cpu::Isa isa = cpu::choose_isa();
  MachineLimits limits{.threads = threads};
  limits.read_gb_per_second = read_bandwidth(threads, isa);
  auto* multiply_add = &cpu::multiply_add_portable;
#if defined(__x86_64__)
  if (isa >= cpu::Isa::kAvx2) multiply_add = &cpu::multiply_add_avx2;
  if (isa >= cpu::Isa::kAvx512) multiply_add = &cpu::multiply_add_avx512;
  if (isa >= cpu::Isa::kAmx) {
    limits.bf16_gflop_per_second =
        best_rate(threads, 3, [](int) { return cpu::tiles_bf16_amx(500'000); }) * 1e-9;
    limits.int8_gop_per_second =
        best_rate(threads, 3, [](int) { return cpu::tiles_int8_amx(500'000); }) * 1e-9;
  }
#endif
  limits.f32_gflop_per_second = best_rate(threads, 3, [&](int) { return multiply_add(5'000'000); }) * 1e-9;
  return limits;
}

}  // namespace mlxs
