#include "formats/quote.h"

#include <fmt/format.h>

#include "base/log_text.h"

namespace mlxs {

std::string quote(std::string_view text) {
  constexpr std::size_t kMaxBytes = 64, kLongestCharacter = 4;
  if (text.size() <= kMaxBytes) return fmt::format("'{}'", visible(text));
  const auto continues = [text](std::size_t i) {
    return (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
  };
  std::size_t end = kMaxBytes;  // not within a character
  while (continues(end) && end > kMaxBytes - kLongestCharacter) --end;
  return fmt::format("'{}… ({} bytes)'", visible(text.substr(0, end)), text.size());
}

}  // namespace mlxs
