#include "telemetry/request_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "telemetry/explain.h"

namespace mlxs {
namespace {

using Json = nlohmann::ordered_json;

Json parts_json(const RequestTimeline& choice) {
  Json parts = Json::object();
  for (std::size_t i = 0; i < kRequestParts; ++i) {
    if (choice.parts[i] > 0) parts[kRequestPartNames[i]] = choice.parts[i];
  }
  return parts;
}

// What a reader may know of another's request: that there was one.
Json seen_json(const RequestSeen& seen, const std::string* reader) {
  const bool own = reader == nullptr || seen.user == *reader;
  return {{"id", own ? Json(seen.request_id) : Json()},
          {"user", own ? Json(seen.user) : Json()},
          {"prompt_tokens", seen.prompt_tokens}};
}

Json went_first_json(const WentFirst& others, const std::string* reader) {
  Json claims = Json::object(), requests = Json::array();
  for (std::size_t i = 0; i < kClaims; ++i) {
    if (others.by_claim[i] > 0) claims[kClaimNames[i]] = others.by_claim[i];
  }
  for (const WentFirst::Request& other : others.named) {
    Json request = seen_json(other.who, reader);
    request["at_seconds"] = other.at_seconds;
    request["why"] = kClaimNames[static_cast<std::size_t>(other.claim)];
    requests.push_back(std::move(request));
  }
  return {{"total", others.total},
          {"why", std::move(claims)},
          {"too_long_ago", others.older},
          {"requests", std::move(requests)}};
}

Json queue_json(const RequestTimeline& choice, const std::string* reader) {
  Json running = Json::array();
  for (const RequestSeen& seen : choice.seen_running) running.push_back(seen_json(seen, reader));
  return {{"running_ahead", choice.running_ahead},
          {"waiting_ahead", choice.waiting_ahead},
          {"no_place_seconds", choice.no_slot_seconds},
          {"no_pages_seconds", choice.no_page_seconds},
          {"running", std::move(running)},
          {"went_first", went_first_json(choice.went_first, reader)}};
}

Json prefill_json(const RequestTimeline& choice) {
  Json chunks = Json::array();
  for (const PrefillChunkRecord& chunk : choice.chunks) {
    chunks.push_back({{"at_seconds", chunk.at_seconds},
                      {"seconds", chunk.seconds},
                      {"step", chunk.step},
                      {"start", chunk.start},
                      {"tokens", chunk.tokens},
                      {"other_tokens", chunk.other_tokens}});
  }
  Json miss;  // null: all of the prompt that could come from the cache did
  if (!choice.prefix_miss.empty()) {
    miss = {{"reason", choice.prefix_miss}, {"token", choice.prefix_miss_token}};
  }
  return {{"cached_tokens", choice.cached_prompt_tokens},
          {"miss", std::move(miss)},
          {"chunks", std::move(chunks)},
          {"chunks_omitted", choice.chunks_omitted}};
}

Json decode_json(const RequestTimeline& choice) {
  return {{"inter_token_seconds",
           {{"p50", choice.itl_p50_seconds},
            {"p95", choice.itl_p95_seconds},
            {"p99", choice.itl_p99_seconds},
            {"max", choice.itl_max_seconds}}},
          {"slowest_token", choice.slowest_token},
          {"slowest_token_prefill_tokens", choice.slowest_prefill_tokens},
          {"mask_seconds", choice.mask_seconds},
          {"pauses", choice.pauses}};
}

Json choice_json(const RequestTimeline& choice, const std::string* reader) {
  Json preemptions = Json::array();
  for (const PreemptionRecord& preemption : choice.preemptions) {
    preemptions.push_back({{"at_seconds", preemption.at_seconds},
                           {"for", seen_json(preemption.for_whom, reader)},
                           {"lost_tokens", preemption.lost_tokens}});
  }
  return {{"finish", choice.finish},
          {"error", choice.error.empty() ? Json() : Json(choice.error)},
          {"prompt_tokens", choice.prompt_tokens},
          {"generated_tokens", choice.generated_tokens},
          {"ttft_seconds", choice.ttft_seconds},
          {"total_seconds", choice.total_seconds},
          {"parts", parts_json(choice)},
          {"queue", queue_json(choice, reader)},
          {"prefill", prefill_json(choice)},
          {"decode", decode_json(choice)},
          {"preemptions", std::move(preemptions)},
          {"preemptions_omitted", choice.preemptions_omitted}};
}

std::string_view state(const RequestReport& report) { return report.complete() ? "done" : "running"; }

Json head_json(const RequestReport& report) {
  Json head{{"id", report.start.id},
            {"object", "request"},
            {"state", state(report)},
            {"method", report.start.method},
            {"path", report.start.path},
            {"model", report.start.model},
            {"tenant", report.start.tenant.empty() ? Json() : Json(report.start.tenant)},
            {"received_unix_ms", report.start.received_unix_ns / 1'000'000}};
  if (!report.start.metadata.empty()) head["metadata"] = Json::parse(report.start.metadata);
  if (report.end) head["status"] = report.end->status == 0 ? Json() : Json(report.end->status);
  if (report.end) head["client_gone"] = report.end->client_gone;
  if (report.complete()) head["e2e_seconds"] = report.e2e_seconds();
  return head;
}

}  // namespace

Json report_json(const RequestReport& report, const std::string* reader) {
  Json json = head_json(report);
  if (report.complete()) {
    json["why"] = explain(report);
    Json parts = Json::object();
    for (const auto& [name, seconds] : request_parts(report)) parts[name] = seconds;
    json["parts"] = std::move(parts);
  }
  if (report.end) {
    json["socket_wait_seconds"] = report.end->socket_wait_seconds;
    json["bytes_sent"] = report.end->bytes;
  }
  json["choices"] = Json::array();
  for (const RequestTimeline& choice : report.choices) json["choices"].push_back(choice_json(choice, reader));
  return json;
}

Json report_summary_json(const RequestReport& report) {
  Json json = head_json(report);
  json["why"] = explain(report);
  return json;
}

std::string timing_header(const RequestReport& report, TimePoint now) {
  RequestReport so_far = report;
  so_far.end = TraceEnd{.at = now};
  std::string header = fmt::format("total;dur={:.3f}", so_far.e2e_seconds() * 1e3);
  for (const auto& [name, seconds] : request_parts(so_far)) {
    header += fmt::format(", {};dur={:.3f}", name, seconds * 1e3);
  }
  return header;
}

}  // namespace mlxs
