// The bytes of a packed-weights file: a header, entries at 64-byte boundaries, an index at the end. Pure
// functions.
//
//   [0, 128)       header: magic, version, sizes, where and what the index is, boot id, checksum of the
//   header [page, index)  entries, 64-byte aligned [index, end)   fingerprint, layout, then key, offset, size
//   and checksum of every entry
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

inline constexpr std::size_t kCacheHeaderBytes = 128;
inline constexpr std::size_t kCacheEntryAlignment = 64;

struct CacheEntry {
  std::uint64_t offset = 0;  // in the file
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;  // of the entry's bytes
};

struct CacheIndex {
  std::string fingerprint;
  std::string layout;
  std::map<std::string, CacheEntry, std::less<>> entries;
};

struct CacheHeader {
  std::uint64_t file_bytes = 0;
  std::uint64_t index_offset = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t index_checksum = 0;
  std::string boot_id;  // the boot during which every entry's bytes were known good; at most 40 bytes
};

// Fast (memory speed) and sensitive to every bit; guards against damage, not against malice.
std::uint64_t cache_checksum(std::span<const std::byte> bytes);

std::vector<std::byte> encode_index(const CacheIndex& index);
std::vector<std::byte> encode_header(const CacheHeader& header);  // kCacheHeaderBytes

// Both return an empty string, or why the file cannot be used; `file` is the whole file.
std::string decode_header(std::span<const std::byte> file, CacheHeader& header);
std::string decode_index(std::span<const std::byte> file, const CacheHeader& header, CacheIndex& index);

// Identifies the running boot of this machine; empty where unknown.
std::string current_boot_id();

}  // namespace mlxs
