// GET /openapi.json: every route, parameter, body and answer as OpenAPI 3.1. Bodies come from the tables that
// their parsers read (fields.h), named schemas from openapi/components.json, what a route is from the table
// in openapi_routes.cpp. Pure but for the route it adds.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "serve/fields.h"
#include "serve/router.h"

namespace mlxs {

// What the document says of a route.
struct RouteDoc {
  std::string_view method, path;  // as in the router; "{name}" is a parameter
  std::string_view tag, summary;
  Json (*request)() = nullptr;     // the schema of its body; null: it has none
  std::string_view response = {};  // a named schema; empty: text
  std::string_view media = "application/json";
  std::string_view stream = {};           // the media type of its stream; empty: it has none
  std::string_view event = {};            // a named schema: what the stream is made of
  std::span<const FieldRule> query = {};  // parameters
  bool generates = false;                 // it takes the headers about priority and targets
  int other = 0;                          // a further status, with the same body as 200, or 101 without one
  bool part_of_pattern = false;           // its path belongs to a route with a longer rest
};
std::span<const RouteDoc> route_docs();

// Of the routes that the router has. with_keys: the server asks for one.
Json openapi_document(const Router& router, std::string_view version, bool with_keys);

// After all other routes.
void add_openapi_route(Router& router, bool with_keys);

}  // namespace mlxs
