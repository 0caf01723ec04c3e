// A body for "content-encoding: gzip". Pure; throws kInternal if zlib fails, which it does for lack of memory
// only.
#pragma once

#include <string>
#include <string_view>

namespace mlxs {

std::string gzip(std::string_view text);

}  // namespace mlxs
