#include "serve/log_routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log_control.h"

namespace mlxs {
namespace {

HttpResponse state() {
  const char* format = log::format() == LogFormat::kJson ? "json" : "pretty";
  return {.body = nlohmann::ordered_json{{"level", log::level()}, {"format", format}}.dump()};
}

std::string wanted_level(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_object() && json.contains("level") && json["level"].is_string()) {
    const auto name = json["level"].get<std::string>();
    if (std::ranges::find(log::kLevels, name) != log::kLevels.end()) return name;
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' names no log level", body.substr(0, 100)),
              fmt::format(R"(send {{"level": "debug"}}, or another of {})", fmt::join(log::kLevels, ", ")),
              "level");
}

}  // namespace

Json log_level_schema() {
  return {{"type", "object"},
          {"properties",
           {{"level",
             {{"type", "string"},
              {"enum", log::kLevels},
              {"description", "What is logged from now on: this and what is worse"}}}}},
          {"required", Json::array({"level"})}};
}

void add_log_routes(Router& router) {
  router.add(
      "GET", "/v1/log", [](const HttpRequest&, std::string_view) -> Reply { return state(); },
      Access::kAdmin);
  router.add(
      "PUT", "/v1/log",
      [](const HttpRequest& request, std::string_view) -> Reply {
        log::set_level(wanted_level(request.body));
        return state();
      },
      Access::kAdmin);
}

}  // namespace mlxs
