// What is told of a request beyond its answer: its ids, its trace, and its record when it is over. The glue
// between connections and telemetry. Any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "serve/http.h"
#include "serve/server_context.h"
#include "telemetry/request_log.h"

namespace mlxs {

// From its headers: the request's id and the trace it belongs to, made up where the client gives none. id: of
// one whose headers do not give it; empty: they do.
void identify(const ServerContext& context, HttpRequest& request, std::string id = {});

// Headers of whatever response the request gets: what lets a page read it, and the trace.
std::vector<std::pair<std::string, std::string>> common_headers(const ServerContext& context,
                                                                const HttpRequest& request);

// A request to a model: its record is kept from now on.
void begin_record(ServerContext& context, const HttpRequest& request, const Generation& generation);
void begin_record(ServerContext& context, const HttpRequest& request, const EncodeParams& params);

// Counts one more stream for as long as what it returns lives.
std::shared_ptr<void> count_stream(const ServerContext& context);

// The answer was sent, or the client is gone: closes the request's record.
void end_exchange(const ServerContext& context, const HttpRequest& request, const TraceEnd& end);

}  // namespace mlxs
