// JSON as bytes: reading a request body with a position for what is wrong, and writing strings on the token
// path, where building a document for each token would cost more than the token.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace mlxs {

// A body as a JSON object. kInvalidJson with the byte (from 1) and the line; kInvalidArgument if it is no
// object.
nlohmann::json parse_body(std::string_view body);

// Appends `text` quoted and escaped. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
std::string json_string(std::string_view text);

// `text` with each byte sequence that is not UTF-8 replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

// A log probability as a JSON number; those that float cannot tell from zero probability as OpenAI's -9999.
void append_logprob(std::string& out, float logprob);

}  // namespace mlxs
