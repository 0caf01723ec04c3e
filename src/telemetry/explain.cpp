#include "telemetry/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mlxs {
namespace {

const RequestTimeline* last_choice(const RequestReport& report) {
  const auto last = std::ranges::max_element(report.choices, {}, &RequestTimeline::total_seconds);
  return last == report.choices.end() ? nullptr : &*last;
}

std::string plural(int count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// In the order of kClaimNames.
constexpr std::string_view kClaimTexts[kClaims] = {"came earlier",
                                                   "had priority",
                                                   "had waited for longer",
                                                   "of tenants that had got less",
                                                   "to make a deadline",
                                                   "came back from a preemption",
                                                   "fitted into the free pages"};

std::string explain_went_first(const WentFirst& others) {
  std::string text = fmt::format("; {} got a place first", others.total);
  const char* before = ": ";
  for (std::size_t i = 0; i < kClaims; ++i) {
    if (others.by_claim[i] == 0) continue;
    text += fmt::format("{}{} {}", std::exchange(before, ", "), others.by_claim[i], kClaimTexts[i]);
  }
  return text;
}

std::string explain_queue(const RequestTimeline& c) {
  std::string text = fmt::format("{} ran and {} waited ahead", c.running_ahead, c.waiting_ahead);
  if (c.went_first.total > 0) text += explain_went_first(c.went_first);
  if (c.no_slot_seconds > 0) text += fmt::format("; for {:.2f} s every place was taken", c.no_slot_seconds);
  if (c.no_page_seconds > 0)
    text += fmt::format("; for {:.2f} s too few KV pages were free", c.no_page_seconds);
  return text;
}

std::string explain_miss(const RequestTimeline& c) {
  if (c.prefix_miss == "diverged") {
    return fmt::format(", other prompts went on differently from token {} on", c.prefix_miss_token);
  }
  if (c.prefix_miss == "evicted" || c.prefix_miss == "expired") {
    return fmt::format(", what follows token {} had been there and was {}", c.prefix_miss_token,
                       c.prefix_miss);
  }
  if (c.prefix_miss == "window") {
    return fmt::format(", token {} is known, but what its layers with a window see before it made room",
                       c.prefix_miss_token);
  }
  return {};
}

std::string explain_decode(const RequestTimeline& c) {
  std::string text =
      fmt::format("{}, {:.1f} ms apart at the median, {:.1f} ms at p99", plural(c.generated_tokens, "token"),
                  c.itl_p50_seconds * 1e3, c.itl_p99_seconds * 1e3);
  if (c.slowest_token > 0) {
    text += fmt::format("; token {} took longest, {:.1f} ms", c.slowest_token, c.itl_max_seconds * 1e3);
  }
  if (c.slowest_prefill_tokens > 0) {
    text += fmt::format(", in a step with {} of other prompts", plural(c.slowest_prefill_tokens, "token"));
  }
  if (c.mask_seconds > 0)
    text += fmt::format("; {:.1f} ms of it for the grammar's masks", c.mask_seconds * 1e3);
  return text;
}

std::string explain_preemption(const RequestTimeline& c) {
  const int count = static_cast<int>(c.preemptions.size()) + c.preemptions_omitted;
  return fmt::format("it lost its KV pages {} and had to compute them again", plural(count, "time"));
}

// What the numbers of the longest part say.
std::string reason(std::string_view name, const RequestReport& report, const RequestTimeline* choice) {
  if (name == "deliver") {
    const double wait = report.end ? report.end->socket_wait_seconds : 0.0;
    return wait > 0 ? fmt::format("the client took the answer slowly; its socket was full for {:.2f} s", wait)
                    : "the answer was complete and on its way to the client";
  }
  if (choice == nullptr) return "the request ended before the engine had it";
  const RequestTimeline& c = *choice;
  if (name == "prepare") return "reading and parsing the request, and the worker threads' queue";
  if (name == "tokenize") return fmt::format("the template and {}", plural(c.prompt_tokens, "prompt token"));
  if (name == "grammar") return "its grammar was compiled";
  if (name == "queue") return explain_queue(c);
  if (name == "budget") return "other prompts used up the steps' token budget";
  if (name == "prefill") {
    return fmt::format("{} of {} prompt tokens were computed in {}; {} came from the cache",
                       c.prompt_tokens - c.cached_prompt_tokens, c.prompt_tokens,
                       plural(static_cast<int>(c.chunks.size()) + c.chunks_omitted, "chunk"),
                       c.cached_prompt_tokens) +
           explain_miss(c);
  }
  if (name == "decode") return explain_decode(c);
  if (name == "paused") return fmt::format("the client took too little, {}", plural(c.pauses, "time"));
  return explain_preemption(c);  // preempted, recompute
}

}  // namespace

std::vector<std::pair<std::string_view, double>> request_parts(const RequestReport& report) {
  std::vector<std::pair<std::string_view, double>> parts;
  const RequestTimeline* choice = last_choice(report);
  if (choice == nullptr) {
    parts.emplace_back(kRequestPartNames.front(), report.e2e_seconds());
    return parts;
  }
  for (std::size_t i = 0; i < kRequestParts; ++i) {
    if (choice->parts[i] > 0) parts.emplace_back(kRequestPartNames[i], choice->parts[i]);
  }
  if (const double seconds = report.deliver_seconds(); seconds > 0) parts.emplace_back("deliver", seconds);
  return parts;
}

std::string explain(const RequestReport& report) {
  if (!report.complete()) return {};
  const auto parts = request_parts(report);
  const auto longest = std::ranges::max_element(parts, {}, [](const auto& entry) { return entry.second; });
  const double total = report.e2e_seconds();
  if (longest == parts.end() || total <= 0) return {};
  return fmt::format("{} took {:.0f} % of {:.3f} s: {}", longest->first, longest->second / total * 100, total,
                     reason(longest->first, report, last_choice(report)));
}

}  // namespace mlxs
