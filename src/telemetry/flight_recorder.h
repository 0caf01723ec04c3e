// The last steps and what they ran, in rings of fixed size: recording allocates nothing, takes no lock and
// makes no system call. Written by engine threads, dumped by any thread, and by a handler of crashes. Throws
// kIo where a file cannot be written.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "mlxs/observer.h"
#include "telemetry/flight_format.h"

namespace mlxs {

struct FlightOptions {
  std::size_t steps = 10'000;       // kept; 0 … 10^6
  std::filesystem::path directory;  // where dumps go; made when it is needed
};

class FlightRecorder final : public EngineObserver {
 public:
  FlightRecorder(FlightOptions options, std::string_view version);
  ~FlightRecorder() override;
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  void on_first_token(std::string_view, double) override {}
  void on_inter_token(std::string_view, double) override {}
  void on_finished(const RequestRecord&) override {}
  void on_step(const StepRecord& record) override;
  void on_request(const RequestEvent& event) override;

  std::uint64_t steps_recorded() const { return next_step_.load(std::memory_order_relaxed); }

  // Writes a new file into the directory; its path.
  std::filesystem::path dump(std::string_view reason) const;
  // The same bytes.
  std::string snapshot(std::string_view reason) const;

  // From now on a crash of the process (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) leaves a dump before it
  // ends as it would have. Of one recorder in a process, until it is destroyed.
  void dump_on_crash();

 private:
  struct Rings;
  FlightHeader header(std::string_view reason) const;
  template <class Write>
  bool emit(std::string_view reason, Write&& write) const;  // false: write() failed
  static void on_crash(int signal);
  std::uint16_t model_index(std::string_view model);

  const FlightOptions options_;
  std::unique_ptr<Rings> rings_;
  std::atomic<std::uint64_t> next_step_{0}, next_span_{0}, next_event_{0};
  FlightHeader base_;           // names of models, clocks
  std::atomic<int> models_{0};  // of base_.model that are whole
  std::atomic_flag naming_;
  mutable std::atomic<unsigned> dumps_{0};
};

}  // namespace mlxs
