#include "text/utf8.h"

namespace mlxs {
namespace {

// What may follow a lead byte (Unicode table 3-7): how many bytes, and the range of the first of them.
struct Sequence {
  std::size_t length;  // with the lead byte; 0: no character starts so
  unsigned char low = 0x80, high = 0xbf;
};

Sequence sequence_of(unsigned char lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xc2) return {0};
  if (lead < 0xe0) return {2};
  if (lead == 0xe0) return {3, 0xa0, 0xbf};  // no overlong forms
  if (lead == 0xed) return {3, 0x80, 0x9f};  // no surrogates
  if (lead < 0xf0) return {3};
  if (lead == 0xf0) return {4, 0x90, 0xbf};  // no overlong forms
  if (lead < 0xf4) return {4};
  if (lead == 0xf4) return {4, 0x80, 0x8f};  // nothing past U+10FFFF
  return {0};
}

// How many bytes at the start of `bytes` fit the sequence that its lead byte begins; at least 1.
std::size_t well_formed_prefix(std::string_view bytes, const Sequence& sequence) {
  std::size_t size = 1;
  unsigned char low = sequence.low, high = sequence.high;
  while (size < sequence.length && size < bytes.size()) {
    const auto byte = static_cast<unsigned char>(bytes[size]);
    if (byte < low || byte > high) break;
    low = 0x80, high = 0xbf;
    ++size;
  }
  return size;
}

}  // namespace

void take_characters(std::string& bytes, std::string& text) {
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const Sequence sequence = sequence_of(static_cast<unsigned char>(rest.front()));
    const std::size_t size = well_formed_prefix(rest, sequence);
    const bool whole = size == sequence.length;
    if (!whole && sequence.length > 0 && size == rest.size()) break;  // more bytes may complete it
    text += whole ? rest.substr(0, size) : "\xef\xbf\xbd";
    rest.remove_prefix(size);
  }
  bytes.erase(0, bytes.size() - rest.size());
}

std::size_t characters_prefix(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const Sequence sequence = sequence_of(static_cast<unsigned char>(rest.front()));
    if (well_formed_prefix(rest, sequence) != sequence.length) break;
    rest.remove_prefix(sequence.length);
  }
  return text.size() - rest.size();
}

}  // namespace mlxs
