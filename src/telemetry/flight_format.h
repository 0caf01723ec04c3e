// The flight recorder's file: a header, then three rings as they lie in memory, oldest entries first
// overwritten. Plain numbers of this machine's byte order, so that a handler of crashes can write them. A
// dump is made while the engine may go on writing: an entry that is not whole says so by its sequence number.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "mlxs/observer.h"

namespace mlxs {

inline constexpr std::array<char, 8> kFlightMagic{'M', 'L', 'X', 'S', 'F', 'L', 'T', '1'};
inline constexpr std::size_t kFlightModels = 32;  // named; further ones share the last place

struct FlightStep {
  std::uint64_t sequence = 0;   // entry n of the ring's life has n + 1; 0: being written
  std::int64_t started_ns = 0;  // steady clock
  std::uint64_t step = 0;
  std::int64_t plan_ns = 0, launch_ns = 0, sample_ns = 0, wait_ns = 0, run_ns = 0, publish_ns = 0,
               mask_ns = 0;
  std::int64_t blocked_tokens[kTokenBlocks] = {};
  std::uint64_t first_span = 0;
  std::int32_t spans = 0;
  std::int32_t prefill_tokens = 0, decode_rows = 0;
  std::int32_t running = 0, waiting = 0, paused = 0, kv_pages_free = 0;
  std::uint16_t model = 0;
  std::uint8_t failed = 0, unused = 0;
};

struct FlightSpan {
  std::uint64_t request = 0;
  std::int32_t start = 0, tokens = 0;
};

struct FlightEvent {
  std::uint64_t sequence = 0;
  std::uint64_t request = 0;
  std::int64_t at_ns = 0;
  std::uint16_t model = 0;
  std::uint8_t kind = 0;  // RequestEvent::Kind
  char id[37] = {};       // the client's, cut; ends with 0
};

struct FlightHeader {
  std::array<char, 8> magic = kFlightMagic;
  std::uint32_t header_bytes = 0, step_bytes = 0, span_bytes = 0, event_bytes = 0;
  std::uint64_t steps = 0, spans = 0, events = 0;              // in the file
  std::uint64_t step_ring = 0, span_ring = 0, event_ring = 0;  // entries that a ring can hold
  std::uint64_t next_step = 0, next_span = 0, next_event = 0;  // written in all
  std::int64_t start_steady_ns = 0, start_unix_ns = 0;         // one moment by both clocks
  std::int64_t dumped_steady_ns = 0;
  std::int32_t pid = 0, models = 0;
  char reason[24] = {};
  char version[24] = {};
  char model[kFlightModels][64] = {};  // names, cut
};

static_assert(std::is_trivially_copyable_v<FlightStep> && std::is_trivially_copyable_v<FlightSpan> &&
              std::is_trivially_copyable_v<FlightEvent> && std::is_trivially_copyable_v<FlightHeader>);
static_assert(sizeof(FlightEvent) == 64);

}  // namespace mlxs
