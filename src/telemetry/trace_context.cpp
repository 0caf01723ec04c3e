#include "telemetry/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace mlxs {
namespace {

constexpr std::size_t kTraceparent = 55;  // version 00; later ones may be longer
constexpr std::size_t kMaxState = 512;
constexpr char kDigits[] = "0123456789abcdef";

// Lower case only, as the standard wants it.
bool read_hex(std::string_view text, std::uint8_t* out) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return false;
    *out++ = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

template <std::size_t N>
std::array<std::uint8_t, N> random_bytes() {
  thread_local std::mt19937_64 random{std::random_device{}() * 0x9E3779B97F4A7C15ull +
                                      std::random_device{}()};
  std::array<std::uint8_t, N> bytes{};
  do {
    for (std::size_t i = 0; i < N; i += 8) {
      const std::uint64_t word = random();
      std::memcpy(&bytes[i], &word, 8);
    }
  } while (bytes == std::array<std::uint8_t, N>{});
  return bytes;
}

}  // namespace

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  std::string text(count * 2, '0');
  for (std::size_t i = 0; i < count; ++i) {
    text[2 * i] = kDigits[bytes[i] >> 4];
    text[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return text;
}

std::array<std::uint8_t, 8> random_span_id() { return random_bytes<8>(); }

std::optional<TraceContext> parse_traceparent(std::string_view text, std::string_view tracestate) {
  if (text.size() < kTraceparent || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  std::uint8_t version = 0, flags = 0;
  TraceContext context;
  if (!read_hex(text.substr(0, 2), &version) || version == 0xff ||
      !read_hex(text.substr(3, 32), context.trace_id.data()) ||
      !read_hex(text.substr(36, 16), context.parent_id.data()) || !read_hex(text.substr(53, 2), &flags)) {
    return std::nullopt;
  }
  if (version == 0 ? text.size() != kTraceparent : text.size() > kTraceparent && text[kTraceparent] != '-')
    return std::nullopt;
  if (!context.valid() || !context.has_parent()) return std::nullopt;
  context.sampled = (flags & 1) != 0;
  if (tracestate.size() <= kMaxState) context.state = tracestate;
  context.span_id = random_span_id();
  return context;
}

TraceContext new_trace() {
  TraceContext context;
  context.trace_id = random_bytes<16>();
  context.span_id = random_span_id();
  return context;
}

std::string traceparent(const TraceContext& context) {
  return "00-" + hex(context.trace_id) + "-" + hex(context.span_id) + (context.sampled ? "-01" : "-00");
}

bool in_share(const TraceContext& context, double share) {
  if (share >= 1) return true;
  std::uint64_t value = 0;
  for (std::size_t i = 9; i < context.trace_id.size(); ++i) value = value << 8 | context.trace_id[i];
  constexpr double kAll = 72057594037927936.0;  // 2^56
  return static_cast<double>(value) < share * kAll;
}

}  // namespace mlxs
