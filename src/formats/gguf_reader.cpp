#include "formats/gguf_reader.h"

#include <fmt/format.h>

#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {

std::string_view GgufReader::read_string(std::string_view what) {
  const std::uint64_t length = read_count(1, what);
  const auto view = take(length, what);
  return {reinterpret_cast<const char*>(view.data()), view.size()};
}

std::uint64_t GgufReader::read_count(std::size_t min_bytes, std::string_view what) {
  const std::uint64_t at = offset_;
  const auto count = read<std::uint64_t>(what);
  if (count > remaining() / min_bytes) {
    fail(fmt::format("{} of length {} at offset {} cannot fit: the file has {} bytes", what, count, at,
                     bytes_.size()));
  }
  return count;
}

void GgufReader::fail_end(std::uint64_t count, std::string_view what) const {
  fail(fmt::format("{} needs {} bytes at offset {}, but the file ends at {}", what, count, offset_,
                   bytes_.size()));
}

void GgufReader::fail(std::string_view message, std::string hint) const {
  if (hint.empty()) hint = "the file is damaged or was not downloaded completely: fetch it again";
  const std::string name = item_name_.empty() ? "" : fmt::format(" {}", quote(item_name_));
  throw Error(ErrorCode::kModelLoad, fmt::format("{}: {}{}: {}", file_, item_kind_, name, message),
              std::move(hint));
}

}  // namespace mlxs
