// Which distributed trace a request belongs to: W3C Trace Context (traceparent, tracestate), level 1. Pure,
// but for the random numbers of new ids.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mlxs {

struct TraceContext {
  std::array<std::uint8_t, 16> trace_id{};  // all zero: there is none
  std::array<std::uint8_t, 8> span_id{};    // this server's span of the request
  std::array<std::uint8_t, 8> parent_id{};  // the caller's; all zero: the trace begins here
  bool sampled = false;                     // the caller's wish; of a trace that begins here: ours
  std::string state;                        // tracestate, handed on as it came

  bool valid() const { return trace_id != std::array<std::uint8_t, 16>{}; }
  bool has_parent() const { return parent_id != std::array<std::uint8_t, 8>{}; }
};

std::string hex(const std::uint8_t* bytes, std::size_t count);
template <std::size_t N>
std::string hex(const std::array<std::uint8_t, N>& bytes) {
  return hex(bytes.data(), N);
}

std::array<std::uint8_t, 8> random_span_id();

// What the caller's headers say; nullopt: nothing, or nothing valid. The span id is new.
std::optional<TraceContext> parse_traceparent(std::string_view traceparent, std::string_view tracestate);
// A trace that begins here.
TraceContext new_trace();
// "00-TRACE-SPAN-01", of this server's span.
std::string traceparent(const TraceContext& context);

// The same answer for a trace wherever it is asked: share (0 … 1) of all trace ids, by their last 7 bytes.
bool in_share(const TraceContext& context, double share);

}  // namespace mlxs
