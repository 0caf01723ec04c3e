#include "serve/request_routes.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "serve/api_keys.h"
#include "serve/error_response.h"
#include "telemetry/request_report.h"

namespace mlxs {
namespace {

constexpr int kDefaultLimit = 20;
constexpr int kMaxLimit = kMostListedRequests;

HttpResponse json_response(const nlohmann::ordered_json& value) {
  return {.body = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

// Whose requests the caller may see; null: everybody's.
const std::string* reader_of(const HttpRequest& request) {
  const Caller* caller = request.caller;
  return caller == nullptr || caller->role == Role::kAdmin ? nullptr : &caller->tenant;
}

bool may_see(const std::string* reader, const RequestReport& report) {
  return reader == nullptr || report.start.tenant == *reader;
}

int limit_of(std::string_view query) {
  if (query.empty()) return kDefaultLimit;
  constexpr std::string_view kName = "limit=";
  int limit = 0;
  const std::string_view text = query.starts_with(kName) ? query.substr(kName.size()) : std::string_view();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
  if (error != std::errc() || end != text.data() + text.size() || limit < 1 || limit > kMaxLimit) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is no query of this route", query),
                fmt::format("limit=N with N from 1 to {} is", kMaxLimit), "limit");
  }
  return limit;
}

}  // namespace

void add_request_routes(Router& router, const RequestLog& log) {
  router.add("GET", "/v1/requests", [&log](const HttpRequest& request, std::string_view) -> Reply {
    const auto limit = static_cast<std::size_t>(limit_of(request.query));
    nlohmann::ordered_json data = nlohmann::ordered_json::array();
    for (const auto& trace : log.latest(log.kept())) {
      if (data.size() == limit) break;
      const RequestReport report = trace->report();
      if (may_see(reader_of(request), report)) data.push_back(report_summary_json(report));
    }
    return json_response({{"object", "list"}, {"data", std::move(data)}});
  });
  router.add("GET", "/v1/requests/{id}", [&log](const HttpRequest& request, std::string_view id) -> Reply {
    const std::string* reader = reader_of(request);
    if (const auto trace = log.find(id)) {
      const RequestReport report = trace->report();
      if (may_see(reader, report)) return json_response(report_json(report, reader));
    }
    const std::string hint = log.kept() == 0
                                 ? "the server keeps no records: start it with --keep-requests"
                                 : fmt::format("the last {} requests to a model are known", log.kept());
    return error_response(Error(ErrorCode::kNotFound, fmt::format("no record of a request '{}'", id), hint));
  });
}

}  // namespace mlxs
