#include "serve/openapi.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <string>
#include <utility>

#include "openapi_components.h"
#include "serve/anthropic_format.h"
#include "serve/dialects.h"
#include "serve/ollama_format.h"
#include "serve/ollama_request.h"
#include "serve/qos_headers.h"

namespace mlxs {
namespace {

struct Status {
  int code;
  const char* when;
  bool body_only;  // of requests that have a body
};
constexpr Status kFailures[] = {
    {400, "A value is missing, of the wrong type or out of range, or the request is too long for the model",
     false},
    {401, "No key, or one that is not known", false},
    {403, "The key, or the page that asks, may not do this", false},
    {404, "There is no such model or object", false},
    {405, "The path has other methods, named in Allow", false},
    {408, "The request was not complete in time", true},
    {413, "The body is too large", true},
    {429, "No place now; Retry-After says when", true},
    {431, "The headers are too large", false},
    {500, "A bug of the server", false},
    {503, "The server is draining, or not ready", false},
    {504, "It took too long", true},
};

Json schema_ref(std::string_view name) { return {{"$ref", fmt::format("#/components/schemas/{}", name)}}; }

std::string_view error_schema(std::string_view path) {
  const ErrorBody body = error_body_of(path);
  return body == ollama_error_json      ? "OllamaError"
         : body == anthropic_error_json ? "AnthropicError"
                                        : "Error";
}

// The HTTP layer answers before it knows the dialect; it does so in OpenAI's words.
Json error_schema_of(std::string_view path) {
  const std::string_view name = error_schema(path);
  if (name == "Error") return schema_ref(name);
  return {{"anyOf", Json::array({schema_ref(name), schema_ref("Error")})}};
}

Json parameters_of(const RouteDoc& doc) {
  Json parameters = Json::array();
  if (const std::size_t brace = doc.path.find('{'); brace != std::string_view::npos) {
    const std::string_view name = doc.path.substr(brace + 1, doc.path.find('}') - brace - 1);
    parameters.push_back({{"name", name},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  for (const FieldRule& rule : doc.query) {
    Json schema = rule_schema(rule.required());  // a query has no null
    const std::string about = schema.value("description", "");
    schema.erase("description");
    parameters.push_back(
        {{"name", rule.name}, {"in", "query"}, {"description", about}, {"schema", std::move(schema)}});
  }
  if (doc.generates) {
    for (const char* name : {"Priority", "SloTtft", "SloTpot"})
      parameters.push_back({{"$ref", fmt::format("#/components/parameters/{}", name)}});
  }
  parameters.push_back({{"$ref", "#/components/parameters/RequestId"}});
  return parameters;
}

Json success_of(const RouteDoc& doc) {
  Json content = Json::object();
  Json& media = content[std::string(doc.media)] = Json::object();
  media["schema"] = doc.response.empty() ? Json{{"type", "string"}} : schema_ref(doc.response);
  if (!doc.stream.empty()) {
    content[std::string(doc.stream)] = {
        {"schema", {{"type", "string"}, {"description", fmt::format("Made of {}s", doc.event)}}},
        {"x-event-schema", schema_ref(doc.event)}};
  }
  return {{"description", doc.stream.empty() ? "The answer" : "The answer, whole or as a stream"},
          {"headers", {{"x-request-id", {{"schema", {{"type", "string"}}}}}}},
          {"content", std::move(content)}};
}

Json operation_of(const RouteDoc& doc, Access access, bool with_keys) {
  Json operation{{"tags", Json::array({doc.tag})},
                 {"summary", doc.summary},
                 {"operationId", fmt::format("{}_{}", doc.method, doc.path)},
                 {"parameters", parameters_of(doc)}};
  if (doc.request != nullptr) {
    operation["requestBody"] = {{"required", true},
                                {"content", {{"application/json", {{"schema", doc.request()}}}}}};
  }
  Json& responses = operation["responses"] = Json::object();
  responses["200"] = success_of(doc);
  const Json error{{"application/json", {{"schema", error_schema_of(doc.path)}}}};
  for (const Status& status : kFailures) {
    if (status.body_only && doc.request == nullptr) continue;
    responses[fmt::format("{}", status.code)] = {{"description", status.when}, {"content", error}};
  }
  if (doc.other == 101) {
    responses.erase("200");
    responses["101"] = {{"description", "The connection goes on as a WebSocket"}};
    responses["426"] = {{"description", "The request asks for no WebSocket"}, {"content", error}};
  } else if (doc.other != 0) {
    responses[fmt::format("{}", doc.other)] = success_of(doc);
  }
  if (with_keys) {
    operation["security"] = Json::array();
    if (access != Access::kOpen)
      operation["security"] = {{{"bearer", Json::array()}}, {{"key", Json::array()}}};
  }
  return operation;
}

Json header_parameter(const char* name, const char* about, Json schema) {
  return {{"name", name}, {"in", "header"}, {"description", about}, {"schema", std::move(schema)}};
}

Json components(bool with_keys) {
  Json result;
  result["schemas"] = Json::parse(openapi::components_json);
  result["schemas"]["OllamaOptions"] = ollama_options_schema();
  const Json milliseconds{{"type", "number"}, {"minimum", 1}, {"maximum", kLongestSloMs}};
  result["parameters"] = {
      {"Priority", header_parameter("x-priority", "Wins over the body's priority",
                                    {{"enum", {"critical", "high", "normal", "low"}}})},
      {"SloTtft", header_parameter("x-slo-ttft-ms", "Wanted: milliseconds to the first token", milliseconds)},
      {"SloTpot",
       header_parameter("x-slo-tpot-ms", "Wanted: milliseconds of every later token", milliseconds)},
      {"RequestId", header_parameter("x-request-id", "Comes back; another is made up where it is not usable",
                                     {{"type", "string"}})}};
  if (with_keys) {
    result["securitySchemes"] = {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
                                 {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}};
  }
  return result;
}

}  // namespace

Json openapi_document(const Router& router, std::string_view version, bool with_keys) {
  Json paths = Json::object();
  for (const RouteDoc& doc : route_docs()) {
    const auto access = router.access_of_pattern(doc.method, doc.path);
    if (!access && !doc.part_of_pattern) continue;
    std::string method(doc.method);
    std::ranges::transform(method, method.begin(), [](unsigned char c) { return std::tolower(c); });
    paths[std::string(doc.path)][method] = operation_of(doc, access.value_or(Access::kUser), with_keys);
  }
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "mlx-serving"},
            {"version", version},
            {"description",
             "OpenAI's, Anthropic's and Ollama's APIs for the models that this server has loaded"}}},
          {"servers", Json::array({{{"url", "/"}}})},
          {"paths", std::move(paths)},
          {"components", components(with_keys)}};
}

void add_openapi_route(Router& router, bool with_keys) {
  const auto text = std::make_shared<std::string>();
  router.add("GET", "/openapi.json",
             [text](const HttpRequest&, std::string_view) -> Reply { return HttpResponse{.body = *text}; });
  *text = openapi_document(router, MLXS_VERSION, with_keys).dump();
}

}  // namespace mlxs
