// What a server counts of its connections and answers. Any thread adds, any thread reads; nothing locks.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace mlxs {

struct ServerCounters {
  static constexpr int kFirstStatus = 100, kStatuses = 500;  // 100 … 599

  std::array<std::atomic<std::uint64_t>, kStatuses> responses{};
  std::atomic<std::uint64_t> clients_gone{0};  // before there was an answer
  std::atomic<std::uint64_t> bytes_sent{0};
  std::atomic<std::uint64_t> rate_limited{0};  // requests
  std::atomic<std::uint64_t> slow_readers{0};  // given up, because they took nothing for so long
  std::atomic<double> socket_wait_seconds{0};  // for clients to take what there was
  std::atomic<int> connections{0}, websockets{0},
      streams{0};  // open; streams: answers on their way as events

  void answered(int status, std::uint64_t bytes, double waited) {
    const int index = status - kFirstStatus;
    (index >= 0 && index < kStatuses ? responses[static_cast<std::size_t>(index)] : clients_gone)
        .fetch_add(1, std::memory_order_relaxed);
    bytes_sent.fetch_add(bytes, std::memory_order_relaxed);
    if (waited > 0) socket_wait_seconds.fetch_add(waited, std::memory_order_relaxed);
  }
};

// What became of records on their way out.
struct ExportCounts {
  std::uint64_t requests_unreported = 0;  // neither in the access log nor traced: the log fell behind
  std::uint64_t traces_sent = 0, traces_dropped = 0, metrics_sent = 0, failures = 0;
  std::uint64_t stalls = 0, flight_dumps = 0;
};

}  // namespace mlxs
