// Calls into rust/mlxs-text: its errors become mlxs::Error, its buffers are freed. Private to src/text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mlxs/error.h"
#include "mlxs_text.h"

namespace mlxs {

inline mlxs_str to_rust(std::string_view text) { return {text.data(), text.size()}; }

inline std::string take_string(const mlxs_text_bytes& bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.size);
  mlxs_text_free(bytes);
  return text;
}

// call(mlxs_text_error*) → code. Throws what the code stands for.
template <typename Call>
void call_rust(Call&& call) {
  mlxs_text_error error{};
  const std::int32_t code = call(&error);
  if (code == MLXS_TEXT_OK) return;
  const ErrorCode kind = code == MLXS_TEXT_BAD_MODEL   ? ErrorCode::kModelLoad
                         : code == MLXS_TEXT_BAD_INPUT ? ErrorCode::kInvalidArgument
                                                       : ErrorCode::kInternal;
  std::string message = take_string(error.message);
  throw Error(kind, std::move(message), take_string(error.hint));
}

}  // namespace mlxs
