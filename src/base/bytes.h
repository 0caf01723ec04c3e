// Amounts of bytes as people write them. Pure functions; parse_bytes throws kInvalidArgument.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mlxs {

// "2GiB", "512MB", "1.5g", "4096": IEC units are powers of 1024, SI units powers of 1000, a bare letter is
// IEC.
std::uint64_t parse_bytes(std::string_view text);
// What parse_bytes reads back as the same number: "10MiB", "4097".
std::string exact_bytes(std::uint64_t bytes);

}  // namespace mlxs
