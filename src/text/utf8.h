// Incremental UTF-8: whole characters out of a stream of bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mlxs {

// Moves what is decided from `bytes` to the end of `text`: whole characters as they are, and one U+FFFD for
// each maximal subpart of an ill-formed sequence (WHATWG Encoding). What stays, at most three bytes, is the
// start of a character.
void take_characters(std::string& bytes, std::string& text);

// Bytes at the start of `text` that are whole characters: all of them where it is UTF-8.
std::size_t characters_prefix(std::string_view text);

}  // namespace mlxs
