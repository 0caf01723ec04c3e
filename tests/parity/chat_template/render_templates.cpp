// Renders chat templates for the parity tests: a JSON array of {template, bos, eos, now, context} on stdin
// becomes an array of {"text"} or {"error", "code"} on stdout.
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mlxs/error.h"
#include "text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;  // templates see the order of keys

Json render(const Json& job) {
  const auto text = [&](const char* key) { return job.at(key).get<std::string>(); };
  try {
    const mlxs::ChatTemplate chat(text("template"), text("bos"), text("eos"));
    const std::chrono::system_clock::time_point now{std::chrono::seconds(job.at("now").get<std::int64_t>())};
    return {{"text", chat.render(job.at("context").dump(), now)}};
  } catch (const mlxs::Error& error) {
    return {{"error", error.what()}, {"code", mlxs::error_code_name(error.code())}};
  }
}

}  // namespace

int main() try {
  Json results = Json::array();
  for (const Json& job : Json::parse(std::cin)) results.push_back(render(job));
  std::cout << results.dump();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "render_templates: %s\n", error.what());
  return 1;
}
