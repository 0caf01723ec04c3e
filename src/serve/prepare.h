// From a whole request to what answers it, whatever protocol it came by: origin, key, route, queue. Any
// thread; may take as long as a long prompt takes to tokenize.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "serve/http.h"
#include "serve/live_answer.h"
#include "serve/server_context.h"

namespace mlxs {

using HeaderList = std::vector<std::pair<std::string, std::string>>;
using Prepared = std::variant<HttpResponse, LiveAnswer>;

// What keeps the caller from this route: its origin, its key. Sets the request's caller and tenant.
std::optional<HttpResponse> admit(const ServerContext& context, HttpRequest& request);

// admit(), the caller's rate limits, then the route. Sets the request's trace, too. headers: of whatever
// response it gets; some may come to those that are there. Never throws: a failure is a response.
Prepared prepare_reply(ServerContext& context, HttpRequest& request, HeaderList& headers);

// The value of x-mlxs-timing as of now, if the client asked for one by sending that header.
bool wants_timing(const HttpRequest& request);
std::string timing_now(const HttpRequest& request);

// body: the dialect's words; null: OpenAI's.
HttpResponse failure_response(const Error& error, ErrorBody body);

// Of x-mlxs-warning, and of the log.
std::string warning_text(const std::vector<std::string>& warnings);

}  // namespace mlxs
