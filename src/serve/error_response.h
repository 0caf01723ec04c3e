// Errors as clients see them: the one table from ErrorCode to HTTP status, and OpenAI's error object.
#pragma once

#include <string>

#include "mlxs/error.h"
#include "serve/http.h"

namespace mlxs {

int http_status(ErrorCode code);

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_json(const Error& error);

// status 0: the code's own. body null: OpenAI's.
HttpResponse error_response(const Error& error, int status = 0, ErrorBody body = nullptr);

}  // namespace mlxs
