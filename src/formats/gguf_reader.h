// A cursor over the bytes of a GGUF file: every read is checked against the end, nothing is copied.
// Errors are kModelLoad and say file, item (set_item), value, offset and remedy. One thread; views live as
// the bytes do.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mlxs {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are read in place: little-endian hosts only");

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  // What errors from here on are about: "metadata", 'llama.block_count' → "metadata 'llama.block_count'".
  void set_item(std::string_view kind, std::string_view name = {}) {
    item_kind_ = kind;
    item_name_ = name;
  }

  std::uint64_t offset() const { return offset_; }
  std::uint64_t remaining() const { return bytes_.size() - offset_; }

  template <class T>
  T read(std::string_view what) {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  // A u64 length and that many bytes.
  std::string_view read_string(std::string_view what);
  // A count of elements that take at least `min_bytes` each: refused when they cannot fit in the file.
  std::uint64_t read_count(std::size_t min_bytes, std::string_view what);
  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > remaining()) fail_end(count, what);
    const auto view = bytes_.subspan(offset_, count);
    offset_ += count;
    return view;
  }

  // Throws kModelLoad: "<file>: <item>: <message>". The default hint is for damage.
  [[noreturn]] void fail(std::string_view message, std::string hint = {}) const;

 private:
  [[noreturn]] void fail_end(std::uint64_t count, std::string_view what) const;

  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
  std::string_view file_;
  std::string_view item_kind_;
  std::string_view item_name_;
};

}  // namespace mlxs
