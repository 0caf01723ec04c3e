// Request bodies of any bytes: parsed, or refused with an Error that says what is wrong. The first byte picks
// the API.
#include "serve/openai_request.h"

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "serve/error_response.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const mlxs::OpenAiRequest request =
        data[0] % 2 == 0 ? mlxs::parse_chat_request(body) : mlxs::parse_completion_request(body);
    if (request.prompts.empty() || request.n < 1) std::abort();
  } catch (const mlxs::Error& error) {
    if (mlxs::http_status(error.code()) != 400) std::abort();
    if (!nlohmann::json::parse(mlxs::error_json(error)).contains("error")) std::abort();
  }
  return 0;
}
