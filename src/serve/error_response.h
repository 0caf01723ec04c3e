// Errors as clients see them: the one table from ErrorCode to HTTP status, and OpenAI's error object.
#pragma once

#include <string>

#include "mlxs/error.h"
#include "serve/http.h"

namespace mlxs {

int http_status(ErrorCode code);

// {"error":{"message":…,"type":…,"param":…,"code":…}}
// status: the one it is sent with, where that is not the code's own.
std::string error_json(const Error& error, int status = 0);

// status 0: the code's own.
HttpResponse error_response(const Error& error, int status = 0);

}  // namespace mlxs
