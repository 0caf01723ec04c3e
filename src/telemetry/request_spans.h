// A request's record as OpenTelemetry spans: the server's span of the request, and below it admit, tokenize,
// grammar, queue, prefill (with its chunks), decode and stream; of several choices each has its own. Names
// and attributes follow the semantic conventions for HTTP and generative AI. Pure, but for random span ids.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "telemetry/request_log.h"

namespace mlxs {

using AttributeValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

struct SpanEvent {
  std::string name;
  std::int64_t unix_ns = 0;
  Attributes attributes;
};

struct Span {
  std::string name;
  std::array<std::uint8_t, 8> id{}, parent{};  // all zero: no parent
  bool server = false;                         // else internal
  std::int64_t start_ns = 0, end_ns = 0;       // unix
  Attributes attributes;
  std::vector<SpanEvent> events;
  std::string error;  // a description; empty: none
};

// The server's span first; a parent before its children. The report is complete.
std::vector<Span> request_spans(const RequestReport& report);

}  // namespace mlxs
