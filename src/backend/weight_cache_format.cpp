#include "backend/weight_cache_format.h"

#include <array>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <type_traits>
#include <utility>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace mlxs {
namespace {

// Read as a number, so that a file of a host with the other byte order does not match.
constexpr std::uint64_t kMagic = 0x4b4341505358'4c4dull;  // "MLXSPACK" in little-endian order
constexpr std::uint32_t kVersion = 1;

struct HeaderBytes {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t reserved;
  std::uint64_t file_bytes, index_offset, index_bytes, index_checksum;
  char boot_id[40];
  char padding[32];
  std::uint64_t checksum;  // of everything before
};
static_assert(sizeof(HeaderBytes) == kCacheHeaderBytes &&
              std::has_unique_object_representations_v<HeaderBytes>);

std::uint64_t checksum_of(const HeaderBytes& header) {
  return cache_checksum(std::as_bytes(std::span(&header, 1)).first(offsetof(HeaderBytes, checksum)));
}

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
  HeaderBytes out{};
  out.magic = kMagic;
  out.version = kVersion;
  out.file_bytes = header.file_bytes;
  out.index_offset = header.index_offset;
  out.index_bytes = header.index_bytes;
  out.index_checksum = header.index_checksum;
  header.boot_id.copy(out.boot_id, sizeof(out.boot_id));
  out.checksum = checksum_of(out);
  const auto bytes = std::as_bytes(std::span(&out, 1));
  return {bytes.begin(), bytes.end()};
}

std::string decode_header(std::span<const std::byte> file, CacheHeader& header) {
  if (file.size() < kCacheHeaderBytes) return "it is truncated";
  HeaderBytes in;
  std::memcpy(&in, file.data(), sizeof(in));
  if (in.magic != kMagic) return "it is not a file of packed weights";
  if (in.checksum != checksum_of(in)) return "its header is damaged";
  if (in.version != kVersion) return "it has another format version";
  header.file_bytes = in.file_bytes;
  header.index_offset = in.index_offset;
  header.index_bytes = in.index_bytes;
  header.index_checksum = in.index_checksum;
  header.boot_id.assign(in.boot_id, ::strnlen(in.boot_id, sizeof(in.boot_id)));
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
