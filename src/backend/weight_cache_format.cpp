#include "backend/weight_cache_format.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <utility>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace mlxs {
namespace {

// Read as a number, so that a file of a host with the other byte order does not match.
constexpr std::uint64_t kMagic = 0x4b4341505358'4c4dull;  // "MLXSPACK" in little-endian order
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kBootIdBytes = 40;

class Writer {
 public:
  template <class T>
  void number(T value) {
    const std::size_t at = out_.size();
    out_.resize(at + sizeof(T));
    std::memcpy(out_.data() + at, &value, sizeof(T));
  }
  void text(std::string_view text) {
    number(static_cast<std::uint32_t>(text.size()));
    for (const char c : text) out_.push_back(static_cast<std::byte>(c));
  }
  void pad_to(std::size_t size) { out_.resize(size); }
  const std::vector<std::byte>& bytes() const { return out_; }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

// After a read past the end every further read is zero, and ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T value{};
    const auto from = take(sizeof(T));
    if (!from.empty()) std::memcpy(&value, from.data(), sizeof(T));
    return value;
  }
  std::string text() {
    const auto from = take(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t count) {
    ok_ = ok_ && count <= bytes_.size();
    if (!ok_) return {};
    const auto view = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return view;
  }
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

}  // namespace

std::uint64_t cache_checksum(std::span<const std::byte> bytes) {
  // Independent lanes keep the multiplier busy; each step is a bijection of lane and word.
  constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15ull;
  using Lanes = std::array<std::uint64_t, 8>;
  const auto mix = [](std::uint64_t lane, std::uint64_t word) {
    const std::uint64_t product = (lane ^ word) * kPrime;
    return product ^ (product >> 32);
  };
  Lanes lanes{1, 2, 3, 4, 5, 6, 7, 8};
  std::size_t at = 0;
  for (; at + sizeof(Lanes) <= bytes.size(); at += sizeof(Lanes)) {
    Lanes words;
    std::memcpy(words.data(), bytes.data() + at, sizeof(Lanes));
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  Lanes tail{};
  if (at < bytes.size()) std::memcpy(tail.data(), bytes.data() + at, bytes.size() - at);
  std::uint64_t hash = bytes.size();
  for (std::size_t i = 0; i < lanes.size(); ++i) hash = mix(hash, mix(lanes[i], tail[i]));
  return hash;
}

std::vector<std::byte> encode_index(const CacheIndex& index) {
  Writer out;
  out.text(index.fingerprint);
  out.text(index.layout);
  out.number(std::uint64_t{index.entries.size()});
  for (const auto& [key, entry] : index.entries) {
    out.text(key);
    out.number(entry.offset);
    out.number(entry.bytes);
    out.number(entry.checksum);
  }
  return out.take();
}

std::vector<std::byte> encode_header(const CacheHeader& header) {
  Writer out;
  out.number(kMagic);
  out.number(kVersion);
  out.number(header.file_bytes);
  out.number(header.index_offset);
  out.number(header.index_bytes);
  out.number(header.index_checksum);
  std::array<char, kBootIdBytes> boot{};
  std::ranges::copy_n(header.boot_id.begin(),
                      static_cast<std::ptrdiff_t>(std::min(header.boot_id.size(), kBootIdBytes)),
                      boot.begin());
  for (const char c : boot) out.number(c);
  out.pad_to(kCacheHeaderBytes - sizeof(std::uint64_t));
  out.number(cache_checksum(out.bytes()));
  return out.take();
}

std::string decode_header(std::span<const std::byte> file, CacheHeader& header) {
  if (file.size() < kCacheHeaderBytes) return "it is truncated";
  const auto bytes = file.first(kCacheHeaderBytes);
  Reader in(bytes);
  if (in.number<std::uint64_t>() != kMagic) return "it is not a file of packed weights";
  Reader tail(bytes.last(sizeof(std::uint64_t)));
  const auto body = bytes.first(kCacheHeaderBytes - sizeof(std::uint64_t));
  if (tail.number<std::uint64_t>() != cache_checksum(body)) return "its header is damaged";
  if (in.number<std::uint32_t>() != kVersion) return "it has another format version";
  header.file_bytes = in.number<std::uint64_t>();
  header.index_offset = in.number<std::uint64_t>();
  header.index_bytes = in.number<std::uint64_t>();
  header.index_checksum = in.number<std::uint64_t>();
  header.boot_id.clear();
  for (std::size_t i = 0; i < kBootIdBytes; ++i) {
    if (const char c = in.number<char>(); c != 0) header.boot_id += c;
  }
  if (header.file_bytes != file.size()) return "it is truncated";
  if (header.index_offset < kCacheHeaderBytes || header.index_offset > file.size() ||
      header.index_bytes != file.size() - header.index_offset) {
    return "its index lies outside of it";
  }
  return {};
}

std::string decode_index(std::span<const std::byte> file, const CacheHeader& header, CacheIndex& index) {
  const auto bytes = file.subspan(header.index_offset, header.index_bytes);
  if (cache_checksum(bytes) != header.index_checksum) return "its index is damaged";
  Reader in(bytes);
  index.fingerprint = in.text();
  index.layout = in.text();
  const auto count = in.number<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && in.ok(); ++i) {
    std::string key = in.text();
    CacheEntry entry;
    entry.offset = in.number<std::uint64_t>();
    entry.bytes = in.number<std::uint64_t>();
    entry.checksum = in.number<std::uint64_t>();
    if (entry.offset % kCacheEntryAlignment != 0 || entry.offset < kCacheHeaderBytes ||
        entry.offset > header.index_offset || entry.bytes > header.index_offset - entry.offset) {
      return "an entry lies outside of it";
    }
    index.entries.insert_or_assign(std::move(key), entry);
  }
  return in.ok() && in.at_end() ? std::string{} : "its index is damaged";
}

std::string current_boot_id() {
#ifdef __APPLE__
  std::array<char, 64> id{};
  std::size_t size = id.size() - 1;
  return sysctlbyname("kern.bootsessionuuid", id.data(), &size, nullptr, 0) == 0 ? std::string(id.data())
                                                                                 : "";
#else
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
#endif
}

}  // namespace mlxs
