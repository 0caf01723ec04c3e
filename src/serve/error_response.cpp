#include "serve/error_response.h"

#include <fmt/format.h>

#include "serve/json_text.h"

namespace mlxs {
namespace {

struct ErrorRow {
  int status;
  const char* type;  // OpenAI's
  const char* code;  // OpenAI's where it has one; null: ours
};

constexpr const char* kClient = "invalid_request_error";
constexpr const char* kServer = "server_error";

ErrorRow row_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return {400, kClient, nullptr};
    case ErrorCode::kInvalidJson:
      return {400, kClient, nullptr};
    case ErrorCode::kContextOverflow:
      return {400, kClient, "context_length_exceeded"};
    case ErrorCode::kTooLarge:
      return {413, kClient, nullptr};
    case ErrorCode::kNotFound:
      return {404, kClient, nullptr};
    case ErrorCode::kModelNotFound:
      return {404, kClient, nullptr};
    case ErrorCode::kMethodNotAllowed:
      return {405, kClient, nullptr};
    case ErrorCode::kUnauthorized:
      return {401, "authentication_error", "invalid_api_key"};
    case ErrorCode::kForbidden:
      return {403, "permission_error", nullptr};
    case ErrorCode::kOverloaded:
      return {429, "rate_limit_error", nullptr};
    case ErrorCode::kModelLoad:
      return {500, kServer, nullptr};
    case ErrorCode::kCancelled:
      return {503, kServer, nullptr};
    case ErrorCode::kTimeout:
      return {504, kServer, nullptr};
    case ErrorCode::kUnavailable:
      return {503, kServer, nullptr};
    case ErrorCode::kOutOfMemory:
      return {503, kServer, nullptr};
    case ErrorCode::kIo:
      return {500, kServer, nullptr};
    case ErrorCode::kInternal:
      return {500, kServer, nullptr};
  }
  return {500, kServer, nullptr};
}

}  // namespace

int http_status(ErrorCode code) { return row_of(code).status; }

std::string error_json(const Error& error) {
  const ErrorRow row = row_of(error.code());
  return fmt::format(R"({{"error":{{"message":{},"type":"{}","param":{},"code":"{}"}}}})",
                     json_string(error.full()), row.type,
                     error.field().empty() ? "null" : json_string(error.field()),
                     row.code != nullptr ? row.code : error_code_name(error.code()));
}

HttpResponse error_response(const Error& error, int status, ErrorBody body) {
  return {.status = status != 0 ? status : http_status(error.code()),
          .body = body != nullptr ? body(error) : error_json(error)};
}

}  // namespace mlxs
