// `why ID`: where the time of one request went, as its server remembers it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/base_url.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "formats/http_client.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using nlohmann::ordered_json;

struct WhyFlags {
  std::string id;
  std::string url = "http://127.0.0.1:8000";
  std::string key;
  int limit = 20;
  bool json = false;
};

constexpr int kBarWidth = 40;

ordered_json get(const WhyFlags& flags, const std::string& path) {
  std::string body;
  FetchRequest request{.url = base_url(flags.url) + path, .token = flags.key};
  request.on_body = [&body](const FetchAnswer&, std::span<const std::byte> piece) {
    body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  };
  const FetchAnswer answer = http_get(request);
  if (answer.status == 0) {
    throw Error(ErrorCode::kUnavailable, fmt::format("{} does not answer: {}", flags.url, answer.failure),
                "give the server's address with --url");
  }
  ordered_json parsed = ordered_json::parse(answer.status == 200 ? body : answer.body, nullptr, false);
  if (answer.status == 200 && parsed.is_object()) return parsed;
  std::string message = fmt::format("{} answered {}", flags.url, answer.status);
  if (parsed.is_object() && parsed.contains("error") && parsed["error"].contains("message")) {
    message = parsed["error"]["message"].get<std::string>();
  }
  throw Error(answer.status == 404 ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument, message,
              answer.status == 401 ? "give a key with --api-key" : "");
}

std::string ms(double seconds) { return fmt::format("{:.1f} ms", seconds * 1e3); }

void print_parts(const ordered_json& parts, double total) {
  for (const auto& [name, value] : parts.items()) {
    const double seconds = value.get<double>();
    const double share = total > 0 ? seconds / total : 0.0;
    std::string bar;
    for (long i = std::lround(share * kBarWidth); i > 0; --i) bar += "█";
    fmt::print("  {:<10} {:>12} {:>4.0f} % {}\n", name, ms(seconds), share * 100, bar);
  }
}

// Another's request has no id for who may not see it.
std::string named(const ordered_json& seen) {
  return seen["id"].is_null() ? "another's request" : seen["id"].get<std::string>();
}

void print_queue(const ordered_json& queue) {
  const int running = queue["running_ahead"].get<int>(), waiting = queue["waiting_ahead"].get<int>();
  if (running + waiting > 0) fmt::print("  queued behind {} running, {} waiting\n", running, waiting);
  for (const auto& seen : queue["running"]) {
    fmt::print("    running: {} ({} prompt tokens)\n", named(seen), seen["prompt_tokens"].get<int>());
  }
  const ordered_json& first = queue["went_first"];
  for (const auto& seen : first["requests"]) {
    fmt::print("    went first at {:>9}: {} ({} prompt tokens): {}\n", ms(seen["at_seconds"].get<double>()),
               named(seen), seen["prompt_tokens"].get<int>(), seen["why"].get<std::string>());
  }
  const auto rest = first["total"].get<std::size_t>() - first["requests"].size();
  if (rest > 0) fmt::print("    and {} more\n", rest);
  const double places = queue["no_place_seconds"].get<double>();
  const double pages = queue["no_pages_seconds"].get<double>();
  if (places > 0) fmt::print("    every place was taken for {}\n", ms(places));
  if (pages > 0) fmt::print("    too few KV pages were free for {}\n", ms(pages));
}

void print_choice(const ordered_json& choice) {
  fmt::print("  {} prompt tokens ({} from the cache), {} generated, {}; first token after {}\n",
             choice["prompt_tokens"].get<int>(), choice["prefill"]["cached_tokens"].get<int>(),
             choice["generated_tokens"].get<int>(), choice["finish"].get<std::string>(),
             ms(choice["ttft_seconds"].get<double>()));
  if (const ordered_json& miss = choice["prefill"]["miss"]; !miss.is_null()) {
    fmt::print("  not cached from token {} on: {}\n", miss["token"].get<int>(),
               miss["reason"].get<std::string>());
  }
  if (!choice["error"].is_null()) fmt::print("  error: {}\n", choice["error"].get<std::string>());
  print_queue(choice["queue"]);
  for (const auto& chunk : choice["prefill"]["chunks"]) {
    fmt::print("  prefill at {:>9}: tokens {} … {} in {} (step {}, with {} of others)\n",
               ms(chunk["at_seconds"].get<double>()), chunk["start"].get<int>(),
               chunk["start"].get<int>() + chunk["tokens"].get<int>() - 1, ms(chunk["seconds"].get<double>()),
               chunk["step"].get<std::uint64_t>(), chunk["other_tokens"].get<int>());
  }
  const ordered_json& gaps = choice["decode"]["inter_token_seconds"];
  if (choice["generated_tokens"].get<int>() > 1) {
    fmt::print("  between tokens: p50 {}, p95 {}, p99 {}, longest {} before token {}\n",
               ms(gaps["p50"].get<double>()), ms(gaps["p95"].get<double>()), ms(gaps["p99"].get<double>()),
               ms(gaps["max"].get<double>()), choice["decode"]["slowest_token"].get<int>());
  }
  if (const double mask = choice["decode"]["mask_seconds"].get<double>(); mask > 0) {
    fmt::print("  {} of it for the grammar's masks\n", ms(mask));
  }
  for (const auto& preemption : choice["preemptions"]) {
    fmt::print("  preempted at {} for {}, {} tokens to compute again\n",
               ms(preemption["at_seconds"].get<double>()), named(preemption["for"]),
               preemption["lost_tokens"].get<int>());
  }
}

void print_report(const ordered_json& report) {
  fmt::print("{}  {} {}  {}\n", report["id"].get<std::string>(), report["method"].get<std::string>(),
             report["path"].get<std::string>(), report["model"].get<std::string>());
  if (report["state"] != "done") {
    fmt::print("  is still running\n");
    return;
  }
  fmt::print("  {}\n\n", report["why"].get<std::string>());
  print_parts(report["parts"], report["e2e_seconds"].get<double>());
  if (const double full = report["socket_wait_seconds"].get<double>(); full > 0) {
    fmt::print("  the client's socket was full for {}\n", ms(full));
  }
  for (const auto& choice : report["choices"]) {
    fmt::print("\n");
    print_choice(choice);
  }
}

void print_list(const ordered_json& list) {
  std::vector<std::vector<std::string>> rows{{"ID", "MODEL", "STATUS", "TIME", "WHY"}};
  for (const auto& entry : list["data"]) {
    const bool done = entry["state"] == "done";
    rows.push_back({entry["id"].get<std::string>(), entry["model"].get<std::string>(),
                    !done                       ? "running"
                    : entry["status"].is_null() ? "gone"
                                                : fmt::format("{}", entry["status"].get<int>()),
                    done ? ms(entry["e2e_seconds"].get<double>()) : "", entry["why"].get<std::string>()});
  }
  fmt::print("{}", format_table(rows));
}

int why(const WhyFlags& flags) {
  const bool list = flags.id.empty();
  const ordered_json answer = get(flags, list ? fmt::format("/v1/requests?limit={}", flags.limit)
                                              : "/v1/requests/" + url_escape(flags.id));
  if (flags.json) {
    fmt::print("{}\n", answer.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else if (list) {
    print_list(answer);
  } else {
    print_report(answer);
  }
  return 0;
}

}  // namespace

void add_why(CLI::App& app, Action& action) {
  auto flags = std::make_shared<WhyFlags>();
  CLI::App* command = app.add_subcommand("why", "Show where the time of a request went");
  command->add_option("ID", flags->id, "The answer's x-request-id; none: the latest requests");
  command->add_option("--url", flags->url, "The server")->capture_default_str();
  command->add_option("--api-key", flags->key, "Sent as a bearer token")->envname("MLXS_API_KEY");
  command->add_option("--limit", flags->limit, "How many to list")
      ->check(CLI::Range(1, 1000, "1..1000"))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer(
      "Examples:\n"
      "  mlx-serving why\n"
      "  mlx-serving why req-0123456789abcdef01234567 --url http://127.0.0.1:9000");
  command->callback([flags, &action] { action = [flags] { return why(*flags); }; });
}

}  // namespace mlxs::cli
