#include "telemetry/request_spans.h"

#include <fmt/format.h>

#include <algorithm>

namespace mlxs {
namespace {

constexpr int kServerError = 500;

double part(const RequestTimeline& c, RequestPart which) { return c.parts[static_cast<std::size_t>(which)]; }

// Builds the spans of one report; moments are seconds since it was received.
class Builder {
 public:
  explicit Builder(const RequestReport& report) : report_(report) {}

  std::vector<Span> take() {
    add_server();
    const bool several = report_.choices.size() > 1;
    for (std::size_t i = 0; i < report_.choices.size(); ++i) {
      const RequestTimeline& choice = report_.choices[i];
      Id parent = spans_.front().id;
      if (several) {
        Span& span = add(fmt::format("choice {}", i), parent, 0, sent_seconds(choice));
        span.attributes = choice_attributes(choice);
        span.error = choice.error;
        parent = span.id;
      }
      add_choice(choice, parent);
    }
    return std::move(spans_);
  }

 private:
  using Id = std::array<std::uint8_t, 8>;

  std::int64_t at(double seconds) const {
    return report_.start.received_unix_ns + static_cast<std::int64_t>(seconds * 1e9);
  }

  // When the last of it had left: of several choices each has its stream, to the answer's last byte.
  double sent_seconds(const RequestTimeline& c) const {
    if (!report_.end || c.generated_tokens == 0) return c.total_seconds;
    return std::max(c.total_seconds, report_.e2e_seconds());
  }

  Span& add(std::string name, const Id& parent, double start, double end) {
    return spans_.emplace_back(Span{.name = std::move(name),
                                    .id = random_span_id(),
                                    .parent = parent,
                                    .start_ns = at(start),
                                    .end_ns = at(std::max(start, end))});
  }

  static Attributes choice_attributes(const RequestTimeline& c) {
    Attributes out{{"gen_ai.usage.input_tokens", std::int64_t{c.prompt_tokens}},
                   {"gen_ai.usage.output_tokens", std::int64_t{c.generated_tokens}},
                   {"gen_ai.usage.cache_read.input_tokens", std::int64_t{c.cached_prompt_tokens}},
                   {"gen_ai.response.finish_reasons", std::vector<std::string>{c.finish}}};
    if (c.generated_tokens > 0) out.emplace_back("gen_ai.latency.time_to_first_token", c.ttft_seconds);
    return out;
  }

  void add_request_attributes(Attributes& out) const {
    const RequestFacts& asked = report_.start.facts;
    out.emplace_back("gen_ai.provider.name", "mlx-serving");
    out.emplace_back("gen_ai.operation.name", asked.operation);
    out.emplace_back("gen_ai.request.model", report_.start.model);
    out.emplace_back("gen_ai.response.model", report_.start.model);
    out.emplace_back("gen_ai.response.id", report_.start.id);
    if (!asked.generates) return;
    if (asked.choices > 1) out.emplace_back("gen_ai.request.choice.count", std::int64_t{asked.choices});
    if (asked.max_tokens) out.emplace_back("gen_ai.request.max_tokens", std::int64_t{*asked.max_tokens});
    if (asked.seed) out.emplace_back("gen_ai.request.seed", static_cast<std::int64_t>(*asked.seed));
    out.emplace_back("gen_ai.request.temperature", double{asked.temperature});
    out.emplace_back("gen_ai.request.top_p", double{asked.top_p});
    if (asked.top_k > 0) out.emplace_back("gen_ai.request.top_k", double(asked.top_k));
    out.emplace_back("gen_ai.request.presence_penalty", double{asked.presence_penalty});
    out.emplace_back("gen_ai.request.frequency_penalty", double{asked.frequency_penalty});
    out.emplace_back("mlxs.stream", asked.stream);
  }

  void add_usage(Attributes& out) const {
    std::int64_t input = 0, output = 0, cached = 0;
    double queue = 0, first = 0;
    std::vector<std::string> reasons;
    for (const RequestTimeline& c : report_.choices) {
      input += c.prompt_tokens;
      output += c.generated_tokens;
      cached += c.cached_prompt_tokens;
      reasons.push_back(c.finish);
      queue = std::max(queue, part(c, RequestPart::kQueue));
      if (c.generated_tokens > 0) first = first > 0 ? std::min(first, c.ttft_seconds) : c.ttft_seconds;
    }
    out.emplace_back("gen_ai.usage.input_tokens", input);
    out.emplace_back("gen_ai.usage.output_tokens", output);
    out.emplace_back("gen_ai.usage.cache_read.input_tokens", cached);
    out.emplace_back("gen_ai.response.finish_reasons", std::move(reasons));
    out.emplace_back("gen_ai.latency.time_in_queue", queue);  // the names that vLLM's traces have
    if (first > 0) out.emplace_back("gen_ai.latency.time_to_first_token", first);
    out.emplace_back("gen_ai.latency.e2e", report_.e2e_seconds());
  }

  void add_server() {
    const TraceStart& start = report_.start;
    const bool model = !start.facts.operation.empty();
    Span& span = add(model ? start.facts.operation + " " + start.model : start.method + " " + start.path, {},
                     0, report_.e2e_seconds());
    span.id = start.context.span_id;
    span.parent = start.context.parent_id;
    span.server = true;
    Attributes& out = span.attributes;
    out = {{"http.request.method", start.method},
           {"url.path", start.path},
           {"client.address", start.peer},
           {"mlxs.request_id", start.id}};
    if (!start.tenant.empty()) out.emplace_back("mlxs.tenant", start.tenant);
    if (report_.end) {
      const TraceEnd& end = *report_.end;
      if (end.status > 0) out.emplace_back("http.response.status_code", std::int64_t{end.status});
      if (end.client_gone) out.emplace_back("mlxs.client_gone", true);
      out.emplace_back("http.response.size", static_cast<std::int64_t>(end.bytes));
      if (end.status >= kServerError) span.error = fmt::format("HTTP {}", end.status);
      if (end.status >= 400) out.emplace_back("error.type", fmt::format("{}", end.status));
    }
    if (model) add_request_attributes(out);
    if (!report_.choices.empty()) add_usage(out);
    if (report_.missed_target()) out.emplace_back("mlxs.target_missed", true);
    for (const RequestTimeline& c : report_.choices) {
      if (!c.error.empty()) span.error = c.error;
    }
  }

  // What came before the first token: the parts that follow one another, then the prompt's chunks.
  void add_choice(const RequestTimeline& c, const Id& parent) {
    double moment = 0;
    const auto next = [&](const char* name, RequestPart which) -> Span* {
      const double seconds = part(c, which);
      if (seconds <= 0) return nullptr;
      Span& span = add(name, parent, moment, moment + seconds);
      moment += seconds;
      return &span;
    };
    next("admit", RequestPart::kPrepare);
    if (Span* span = next("tokenize", RequestPart::kTokenize)) {
      span->attributes.emplace_back("gen_ai.usage.input_tokens", std::int64_t{c.prompt_tokens});
    }
    next("grammar", RequestPart::kGrammar);
    if (Span* span = next("queue", RequestPart::kQueue)) {
      span->attributes = {{"mlxs.running_ahead", std::int64_t{c.running_ahead}},
                          {"mlxs.waiting_ahead", std::int64_t{c.waiting_ahead}},
                          {"mlxs.went_first", std::int64_t{c.went_first.total}},
                          {"mlxs.no_slot_seconds", c.no_slot_seconds},
                          {"mlxs.no_page_seconds", c.no_page_seconds}};
      for (std::size_t i = 0; i < kClaims; ++i) {
        if (c.went_first.by_claim[i] == 0) continue;
        span->attributes.emplace_back(fmt::format("mlxs.went_first.{}", kClaimNames[i]),
                                      std::int64_t{c.went_first.by_claim[i]});
      }
    }
    const double first = c.generated_tokens > 0 ? c.ttft_seconds : c.total_seconds;
    if (!c.chunks.empty() || c.generated_tokens > 0) add_prefill(c, parent, std::min(moment, first), first);
    if (c.generated_tokens > 0) add_decode(c, parent, first);
  }

  void add_prefill(const RequestTimeline& c, const Id& parent, double start, double end) {
    Span& span = add("prefill", parent, start, end);
    span.attributes = {{"mlxs.computed_tokens", std::int64_t{c.prompt_tokens - c.cached_prompt_tokens}},
                       {"mlxs.cached_tokens", std::int64_t{c.cached_prompt_tokens}},
                       {"mlxs.prefix_miss", c.prefix_miss},
                       {"mlxs.prefix_miss_token", std::int64_t{c.prefix_miss_token}},
                       {"mlxs.chunks_omitted", std::int64_t{c.chunks_omitted}}};
    add_preemptions(span, c, start, end);
    const Id prefill = span.id;
    for (const PrefillChunkRecord& chunk : c.chunks) {
      const double from = std::clamp(chunk.at_seconds, start, end);
      Span& child = add("prefill chunk", prefill, from, std::min(from + chunk.seconds, end));
      child.attributes = {{"mlxs.step", static_cast<std::int64_t>(chunk.step)},
                          {"mlxs.start", std::int64_t{chunk.start}},
                          {"mlxs.tokens", std::int64_t{chunk.tokens}},
                          {"mlxs.other_tokens", std::int64_t{chunk.other_tokens}}};
    }
  }

  void add_decode(const RequestTimeline& c, const Id& parent, double start) {
    Span& span = add("decode", parent, start, c.total_seconds);
    span.attributes = {{"gen_ai.usage.output_tokens", std::int64_t{c.generated_tokens}},
                       {"mlxs.itl_p50_seconds", c.itl_p50_seconds},
                       {"mlxs.itl_p99_seconds", c.itl_p99_seconds},
                       {"mlxs.itl_max_seconds", c.itl_max_seconds},
                       {"mlxs.mask_seconds", c.mask_seconds},
                       {"mlxs.paused_seconds", part(c, RequestPart::kPaused)},
                       {"mlxs.preempted_seconds", part(c, RequestPart::kPreempted)},
                       {"mlxs.recompute_seconds", part(c, RequestPart::kRecompute)}};
    add_preemptions(span, c, start, c.total_seconds + 1);
    if (!report_.end) return;
    Span& stream = add("stream", parent, start, sent_seconds(c));
    stream.attributes = {{"http.response.size", static_cast<std::int64_t>(report_.end->bytes)},
                         {"mlxs.socket_wait_seconds", report_.end->socket_wait_seconds}};
  }

  // Those from `start` on and before `end`.
  void add_preemptions(Span& span, const RequestTimeline& c, double start, double end) const {
    for (const PreemptionRecord& preemption : c.preemptions) {
      if (preemption.at_seconds < start || preemption.at_seconds >= end) continue;
      span.events.push_back({.name = "preempted",
                             .unix_ns = at(preemption.at_seconds),
                             .attributes = {{"mlxs.for", preemption.for_whom.request_id},
                                            {"mlxs.lost_tokens", std::int64_t{preemption.lost_tokens}}}});
    }
  }

  const RequestReport& report_;
  std::vector<Span> spans_;
};

}  // namespace

std::vector<Span> request_spans(const RequestReport& report) { return Builder(report).take(); }

}  // namespace mlxs
