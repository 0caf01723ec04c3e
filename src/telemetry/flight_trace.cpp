#include "telemetry/flight_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void refuse(std::string what) {
  throw Error(ErrorCode::kInvalidArgument, "this is no dump of the flight recorder: " + std::move(what),
              "give a file that this version of mlx-serving wrote");
}

template <class Entry>
std::vector<Entry> read_entries(std::string_view& rest, std::uint64_t count, std::uint64_t ring) {
  if (count > ring || count > rest.size() / sizeof(Entry)) refuse("it is cut short");
  std::vector<Entry> entries(static_cast<std::size_t>(count));
  if (count > 0) std::memcpy(entries.data(), rest.data(), entries.size() * sizeof(Entry));
  rest.remove_prefix(entries.size() * sizeof(Entry));
  return entries;
}

// Those that were not being written, in the order in which they were.
template <class Entry>
std::vector<Entry> in_order(std::vector<Entry> entries, std::uint64_t ring) {
  std::vector<Entry> whole;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].sequence != 0 && (entries[i].sequence - 1) % ring == i) whole.push_back(entries[i]);
  }
  std::ranges::sort(whole, {}, &Entry::sequence);
  return whole;
}

// Numbers of a damaged file must not overflow.
constexpr std::int64_t kFar = std::int64_t{1} << 60;

bool plausible(const FlightStep& s) {
  const std::int64_t times[] = {s.started_ns, s.plan_ns, s.launch_ns,  s.sample_ns,
                                s.wait_ns,    s.run_ns,  s.publish_ns, s.mask_ns};
  return std::ranges::all_of(times, [](std::int64_t time) { return time >= 0 && time < kFar; });
}

std::string_view text_of(const char* text, std::size_t most) { return {text, strnlen(text, most)}; }

// One request's lane, gathered from all that is known of it.
struct Lane {
  std::string id;
  std::optional<std::int64_t> queued, admitted, ended;
  std::int64_t first = INT64_MAX, last = INT64_MIN;
  void saw(std::int64_t from, std::int64_t to) {
    first = std::min(first, from);
    last = std::max(last, to);
  }
};

class Writer {
 public:
  explicit Writer(const FlightDump& dump) : dump_(dump) {}

  std::string write() {
    gather();
    name_lanes();
    for (const auto& [key, lane] : lanes_) add_lane(key, lane);  // before what lies in them
    for (std::size_t i = 0; i < dump_.steps.size(); ++i) add_step(dump_.steps[i], dump_.spans[i]);
    add_instants();
    in_order_of_time();
    const FlightHeader& h = dump_.header;
    Json json{{"displayTimeUnit", "ms"},
              {"otherData",
               {{"reason", text_of(h.reason, sizeof h.reason)},
                {"version", text_of(h.version, sizeof h.version)},
                {"pid", h.pid},
                {"steps", dump_.steps.size()},
                {"steps_recorded", h.next_step},
                {"time_zero_unix_ns", unix_ns(zero_)}}},
              {"traceEvents", std::move(events_)}};
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  using Key = std::pair<int, std::uint64_t>;  // model, request

  std::int64_t unix_ns(std::int64_t steady) const {
    return dump_.header.start_unix_ns + (steady - dump_.header.start_steady_ns);
  }
  double us(std::int64_t steady) const { return static_cast<double>(steady - zero_) / 1e3; }
  int engine_pid(int model) const { return 2 * model + 1; }
  int requests_pid(int model) const { return 2 * model + 2; }
  static std::int64_t run_start(const FlightStep& s) { return s.started_ns + s.plan_ns; }
  static std::int64_t run_end(const FlightStep& s) { return run_start(s) + s.run_ns; }

  Json& add(std::string_view phase, std::string name, int pid, std::uint64_t tid, std::int64_t at) {
    events_.push_back({{"ph", phase}, {"name", std::move(name)}, {"pid", pid}, {"tid", tid}, {"ts", us(at)}});
    return events_.back();
  }
  Json& slice(std::string name, int pid, std::uint64_t tid, std::int64_t from, std::int64_t to) {
    Json& event = add("X", std::move(name), pid, tid, from);
    event["dur"] = us(std::max(from, to)) - us(from);
    return event;
  }

  void gather() {
    for (const FlightEvent& event : dump_.events) {
      Lane& lane = lanes_[{event.model, event.request}];
      lane.id = std::string(text_of(event.id, sizeof event.id));
      lane.saw(event.at_ns, event.at_ns);
      const auto kind = static_cast<RequestEvent::Kind>(event.kind);
      if (kind == RequestEvent::Kind::kQueued) lane.queued = event.at_ns;
      if (kind == RequestEvent::Kind::kAdmitted && !lane.admitted) lane.admitted = event.at_ns;
      if (kind == RequestEvent::Kind::kEnded) lane.ended = event.at_ns;
    }
    for (std::size_t i = 0; i < dump_.steps.size(); ++i) {
      const FlightStep& step = dump_.steps[i];
      zero_ = std::min(zero_, step.started_ns);
      for (const FlightSpan& span : dump_.spans[i]) {
        lanes_[{step.model, span.request}].saw(run_start(step), run_end(step));
      }
    }
    for (const auto& [key, lane] : lanes_) zero_ = std::min(zero_, lane.first);
    if (zero_ == INT64_MAX) zero_ = dump_.header.start_steady_ns;
  }

  void name_lanes() {
    std::set<int> models;
    for (const FlightStep& step : dump_.steps) models.insert(step.model);
    for (const auto& [key, lane] : lanes_) models.insert(key.first);
    for (const int model : models) {
      const bool known = model < std::min<int>(dump_.header.models, kFlightModels);
      const std::string name(known ? text_of(dump_.header.model[model], sizeof dump_.header.model[0]) : "?");
      name_thing("process_name", engine_pid(model), 0, name + ": engine");
      name_thing("thread_name", engine_pid(model), 1, "steps");
      name_thing("process_name", requests_pid(model), 0, name + ": requests");
    }
    for (const auto& [key, lane] : lanes_) {
      name_thing("thread_name", requests_pid(key.first), key.second,
                 lane.id.empty() ? fmt::format("request {}", key.second) : lane.id);
    }
  }
  void name_thing(const char* what, int pid, std::uint64_t tid, const std::string& name) {
    events_.push_back({{"ph", "M"}, {"name", what}, {"pid", pid}, {"tid", tid}, {"args", {{"name", name}}}});
  }

  void add_step(const FlightStep& s, const std::vector<FlightSpan>& spans) {
    const int pid = engine_pid(s.model);
    const std::int64_t end = run_end(s) + s.publish_ns;
    Json blocked = Json::object();
    for (std::size_t i = 0; i < kTokenBlocks; ++i) {
      if (s.blocked_tokens[i] > 0) blocked[kTokenBlockNames[i]] = s.blocked_tokens[i];
    }
    slice(fmt::format("step {}", s.step), pid, 1, s.started_ns, end)["args"] = {
        {"prefill_tokens", s.prefill_tokens},
        {"decode_rows", s.decode_rows},
        {"requests", s.spans},
        {"blocked_tokens", std::move(blocked)},
        {"failed", s.failed != 0}};
    std::int64_t at = s.started_ns;
    const auto part = [&](const char* name, std::int64_t duration) {
      if (duration > 0) slice(name, pid, 1, at, std::min(at + duration, end));
      at += std::max<std::int64_t>(duration, 0);
    };
    part("plan", s.plan_ns);
    part("mask", s.mask_ns);
    part("launch", s.launch_ns);
    part("sample", s.sample_ns);
    at = run_end(s) - s.wait_ns;  // of a step that was handed over while another ran nothing comes before it
    part("wait", s.wait_ns);
    at = run_end(s);
    part("publish", s.publish_ns);
    add("C", "tokens", pid, 0, s.started_ns)["args"] = {{"prefill", s.prefill_tokens},
                                                        {"decode", s.decode_rows}};
    add("C", "requests", pid, 0, end)["args"] = {
        {"running", s.running}, {"waiting", s.waiting}, {"paused", s.paused}};
    add("C", "free KV pages", pid, 0, end)["args"] = {{"free", s.kv_pages_free}};
    for (std::size_t i = 0; i < spans.size(); ++i) {
      const FlightSpan& span = spans[i];
      const bool decodes = i < static_cast<std::size_t>(std::max(0, s.decode_rows));
      slice(decodes ? "decode" : "prefill", requests_pid(s.model), span.request, run_start(s),
            run_end(s))["args"] = {{"step", s.step}, {"start", span.start}, {"tokens", span.tokens}};
    }
  }

  void add_lane(const Key& key, const Lane& lane) {
    const int pid = requests_pid(key.first);
    const std::int64_t from = lane.queued.value_or(lane.first);
    const std::int64_t to = std::max(lane.ended.value_or(lane.last), lane.last);
    slice(lane.id.empty() ? "request" : lane.id, pid, key.second, from, to)["args"] = {
        {"begins_before", !lane.queued}, {"goes_on", !lane.ended}};
    if (lane.queued) slice("queue", pid, key.second, from, lane.admitted.value_or(to));
  }

  void add_instants() {
    for (const FlightEvent& event : dump_.events) {
      const auto kind = static_cast<RequestEvent::Kind>(event.kind);
      const char* name = kind == RequestEvent::Kind::kPreempted ? "preempted"
                         : kind == RequestEvent::Kind::kPaused  ? "paused"
                         : kind == RequestEvent::Kind::kResumed ? "resumed"
                                                                : nullptr;
      if (name != nullptr) add("i", name, requests_pid(event.model), event.request, event.at_ns)["s"] = "t";
    }
  }

  // Names first; of what begins at once, what lasts longer: readers that nest as they go want it so.
  void in_order_of_time() {
    std::stable_sort(events_.begin(), events_.end(), [](const Json& a, const Json& b) {
      const bool a_names = !a.contains("ts"), b_names = !b.contains("ts");
      if (a_names || b_names) return a_names && !b_names;
      const double a_at = a["ts"].get<double>(), b_at = b["ts"].get<double>();
      return a_at != b_at ? a_at < b_at : a.value("dur", 0.0) > b.value("dur", 0.0);
    });
  }

  const FlightDump& dump_;
  std::map<Key, Lane> lanes_;
  std::int64_t zero_ = INT64_MAX;
  Json events_ = Json::array();
};

}  // namespace

FlightDump read_flight(std::string_view bytes) {
  FlightDump dump;
  FlightHeader& h = dump.header;
  if (bytes.size() < sizeof h) refuse("it is too short");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != kFlightMagic) refuse("it begins with other bytes");
  if (h.header_bytes != sizeof(FlightHeader) || h.step_bytes != sizeof(FlightStep) ||
      h.span_bytes != sizeof(FlightSpan) || h.event_bytes != sizeof(FlightEvent) || h.step_ring == 0 ||
      h.span_ring == 0 || h.event_ring == 0) {
    refuse("another version wrote it");
  }
  bytes.remove_prefix(sizeof h);
  dump.steps = in_order(read_entries<FlightStep>(bytes, h.steps, h.step_ring), h.step_ring);
  const std::vector<FlightSpan> spans = read_entries<FlightSpan>(bytes, h.spans, h.span_ring);
  dump.events = in_order(read_entries<FlightEvent>(bytes, h.events, h.event_ring), h.event_ring);
  std::erase_if(dump.steps, [](const FlightStep& step) { return !plausible(step); });
  std::erase_if(dump.events, [](const FlightEvent& e) { return e.at_ns < 0 || e.at_ns >= kFar; });
  if (h.start_steady_ns < 0 || h.start_steady_ns >= kFar || h.start_unix_ns < 0 ||
      h.start_unix_ns >= 2 * kFar) {
    refuse("its clocks are impossible");
  }
  for (const FlightStep& step : dump.steps) {
    std::vector<FlightSpan>& own = dump.spans.emplace_back();
    const auto count = static_cast<std::uint64_t>(std::max(0, step.spans));
    const bool there = count <= h.span_ring && step.first_span <= h.next_span &&
                       h.next_span - step.first_span <= h.span_ring;
    for (std::uint64_t i = 0; there && i < count && (step.first_span + i) % h.span_ring < spans.size(); ++i) {
      own.push_back(spans[static_cast<std::size_t>((step.first_span + i) % h.span_ring)]);
    }
  }
  return dump;
}

std::string chrome_trace(const FlightDump& dump) { return Writer(dump).write(); }

}  // namespace mlxs
