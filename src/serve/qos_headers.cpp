#include "serve/qos_headers.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "serve/fields.h"

namespace mlxs {
namespace {

std::optional<double> milliseconds(const HttpRequest& request, std::string_view name) {
  const std::string_view text = request.header(name);
  if (text.empty()) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 1 && value <= kLongestSloMs)) {
    refuse_field(name, fmt::format("{}: '{}' is no number of milliseconds", name, text),
                 fmt::format("use 1 … {:.0f}", kLongestSloMs));
  }
  return value;
}

}  // namespace

RequestPriority parse_priority(std::string_view field, std::string_view name) {
  static constexpr std::pair<std::string_view, RequestPriority> kNames[] = {
      {"critical", RequestPriority::kCritical},
      {"high", RequestPriority::kHigh},
      {"normal", RequestPriority::kNormal},
      {"low", RequestPriority::kLow}};
  for (const auto& [known, priority] : kNames) {
    if (known == name) return priority;
  }
  refuse_field(field, fmt::format("{} = '{}' is none", field, name), "use critical, high, normal or low");
}

void check_qos_headers(const HttpRequest& request) {
  const std::string_view priority = request.header("x-priority");
  if (!priority.empty()) parse_priority("x-priority", priority);
  milliseconds(request, "x-slo-ttft-ms");
  milliseconds(request, "x-slo-tpot-ms");
}

void apply_qos_headers(const HttpRequest& request, Generation& generation) {
  const std::string_view priority = request.header("x-priority");
  const std::optional<double> ttft = milliseconds(request, "x-slo-ttft-ms");
  const std::optional<double> tpot = milliseconds(request, "x-slo-tpot-ms");
  for (GenerateParams& params : generation.prompts) {
    if (!priority.empty()) params.priority = parse_priority("x-priority", priority);
    if (ttft) params.slo_ttft_ms = *ttft;
    if (tpot) params.slo_tpot_ms = *tpot;
  }
}

}  // namespace mlxs
