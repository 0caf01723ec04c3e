// Names for requests and answers.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mlxs {

// The prefix and 24 random hexadecimal digits.
std::string random_id(std::string_view prefix);

// A client's own x-request-id, if it is fit to go into a header and a log: 1 … 128 visible ASCII characters.
std::optional<std::string> usable_request_id(std::string_view given);

}  // namespace mlxs
