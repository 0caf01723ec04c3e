#include "backend/weight_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "backend/weight_cache_file.h"
#include "backend/weight_cache_format.h"
#include "backend/weight_mapping.h"
#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

// Entries from this size on get a mapping of their own; smaller ones share mappings of kSharedChunk.
constexpr std::size_t kOwnMapping = std::size_t{256} << 10;
constexpr std::size_t kSharedChunk = std::size_t{1} << 20;

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::size_t page_bytes() {
  static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return page;
}

// One name a model and kind of layout; the layout's version is left out, so that a new version replaces the
// old file.
std::string file_name(std::string_view fingerprint, std::string_view layout) {
  const std::size_t dash = layout.rfind('-');
  if (dash != std::string_view::npos && dash + 1 < layout.size() &&
      std::all_of(layout.begin() + static_cast<std::ptrdiff_t>(dash) + 1, layout.end(),
                  [](unsigned char c) { return std::isdigit(c) != 0; })) {
    layout = layout.substr(0, dash);
  }
  std::string name = fmt::format("{}.{}", fingerprint, layout);
  const std::string original = name;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.') c = '_';
  }
  constexpr std::size_t kLongest = 160;
  if (name != original || name.size() > kLongest) {
    const std::uint64_t hash = cache_checksum(std::as_bytes(std::span(original)));
    name = fmt::format("{}-{:016x}", name.substr(0, kLongest), hash);
  }
  return name + ".packed";
}

}  // namespace

struct WeightCache::Impl {
  fs::path directory, file;
  std::string fingerprint, layout;

  bool complete = false;   // the entries are those of a valid file
  bool in_memory = false;  // no file can be written
  Descriptor temp;         // the file that is being built, locked for as long
  fs::path temp_path;
  std::uint64_t end = 0;                    // of the file that is being built
  std::shared_ptr<WeightMapping> existing;  // of the file that was found
  std::vector<Mapping> mappings;            // of what is built
  std::span<std::byte> chunk;               // the free rest of the last shared mapping…
  std::uint64_t chunk_offset = 0;           // … and where it lies in the file

  struct Stored {
    std::span<std::byte> bytes;
    std::uint64_t offset = 0;
    bool in_build = false;  // in the file that is being built, not in the one that was mapped
  };
  std::map<std::string, Stored, std::less<>> entries;

  void map_existing();
  std::string try_map(const Descriptor& fd);
  void remove_orphans() const;
  bool begin_file();
  std::span<std::byte> allocate(std::size_t bytes, std::uint64_t& offset);
  std::span<std::byte> grow(std::size_t bytes, std::uint64_t& offset);
  std::span<std::byte> create(std::string_view key, std::size_t bytes);
  void publish();
  void abandon();
  void seal();
};

// ---------------------------------------------------------------- reading

void WeightCache::Impl::map_existing() {
  Descriptor fd(::open(file.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) fd = Descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno != ENOENT) log::warn("{}: cannot be read: {}", file.string(), std::strerror(errno));
    return;
  }
  const std::string problem = try_map(fd);
  if (problem.empty()) {
    complete = true;
    return;
  }
  entries.clear();
  existing.reset();
  log::warn("{}: {}: packing the weights again", file.string(), problem);
  std::error_code ignored;
  fs::remove(file, ignored);
}

// Empty, or why the file cannot be used.
std::string WeightCache::Impl::try_map(const Descriptor& fd) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return std::strerror(errno);
  if (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(kCacheHeaderBytes))
    return "it is truncated";
  existing = std::make_shared<WeightMapping>(fd.get(), static_cast<std::size_t>(status.st_size));
  const WeightMapping& map = *existing;
  if (!map) return std::strerror(errno);
  CacheHeader header;
  CacheIndex index;
  if (std::string problem = decode_header(map.span(), header); !problem.empty()) return problem;
  if (std::string problem = decode_index(map.span(), header, index); !problem.empty()) return problem;
  if (index.fingerprint != fingerprint) return "it was built from another file";
  if (index.layout != layout) return fmt::format("its layout is {}, not {}", index.layout, layout);
  // commit() does not wait for the disk, so a crash of the machine can leave holes: trust only what this boot
  // wrote or has verified.
  const std::string boot = current_boot_id();
  const bool verify = boot.empty() || header.boot_id != boot;
  for (const auto& [key, entry] : index.entries) {
    const auto bytes = map.span().subspan(entry.offset, entry.bytes);
    if (verify && cache_checksum(bytes) != entry.checksum) return fmt::format("entry '{}' is damaged", key);
    entries.emplace(key, Stored{bytes, entry.offset, false});
  }
  if (verify && !boot.empty()) {
    header.boot_id = boot;
    (void)write_all(fd.get(), encode_header(header),
                    0);  // refused on a read-only file: verified again next time
  }
  return {};
}

// ---------------------------------------------------------------- building

// Temporary files of builders that died hold no lock.
void WeightCache::Impl::remove_orphans() const {
  std::error_code error;
  const std::string prefix = file.filename().string() + ".tmp-";
  for (fs::directory_iterator it(directory, error), end_it; !error && it != end_it; it.increment(error)) {
    if (!it->path().filename().string().starts_with(prefix)) continue;
    const Descriptor fd(::open(it->path().c_str(), O_RDONLY | O_CLOEXEC));
    if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(it->path().c_str());
  }
}

// Opens the temporary file; false, with one warning, where that is impossible.
bool WeightCache::Impl::begin_file() {
  if (temp) return true;
  if (in_memory) return false;
  static std::atomic<unsigned> counter{0};
  std::error_code error;
  fs::create_directories(directory, error);
  remove_orphans();
  for (int attempt = 0; attempt < 10; ++attempt) {
    temp_path = directory / fmt::format("{}.tmp-{}-{}", file.filename().string(), ::getpid(), counter++);
    temp = Descriptor(::open(temp_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!temp) {
      if (errno == EEXIST) continue;
      break;
    }
    // Another process may have taken the file for an orphan before it was locked: then it has no name any
    // more.
    struct stat status {};
    if (::flock(temp.get(), LOCK_EX | LOCK_NB) == 0 && ::fstat(temp.get(), &status) == 0 &&
        status.st_nlink == 1) {
      end = page_bytes();
      return true;
    }
    temp.reset();
  }
  const int reason = errno;
  in_memory = true;
  log::warn("{}: cannot be written ({}): packed weights are kept in memory and built again at the next start",
            directory.string(), std::strerror(reason));
  return false;
}

// A new mapping of whole pages at the end of the file, or of memory.
std::span<std::byte> WeightCache::Impl::grow(std::size_t bytes, std::uint64_t& offset) {
  bytes = round_up(bytes, page_bytes());
  const bool to_file = begin_file();
  if (to_file) {
    if (const int error = allocate_blocks(temp.get(), end, bytes)) {
      std::error_code ignored;
      const auto space = fs::space(directory, ignored);
      throw Error(ErrorCode::kIo,
                  fmt::format("{}: cannot store {} more bytes of packed weights ({} bytes free): {}",
                              directory.string(), bytes, ignored ? 0 : space.available, std::strerror(error)),
                  "free space there, or set MLXS_CACHE_DIR to a folder on a larger disk");
    }
  }
  Mapping map(to_file ? temp.get() : -1, to_file ? end : 0, bytes, PROT_READ | PROT_WRITE);
  if (!map) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("cannot map {} bytes of packed weights: {}", bytes, std::strerror(errno)),
                "free memory, or use a smaller model");
  }
  offset = end;
  end += bytes;
  mappings.push_back(std::move(map));
  return mappings.back().span();
}

std::span<std::byte> WeightCache::Impl::allocate(std::size_t bytes, std::uint64_t& offset) {
  if (bytes >= kOwnMapping) return grow(bytes, offset).first(bytes);
  const std::size_t taken = round_up(std::max(bytes, std::size_t{1}), kCacheEntryAlignment);
  if (taken > chunk.size()) chunk = grow(kSharedChunk, chunk_offset);
  const auto span = chunk.first(bytes);
  offset = chunk_offset;
  chunk = chunk.subspan(taken);
  chunk_offset += taken;
  return span;
}

std::span<std::byte> WeightCache::Impl::create(std::string_view key, std::size_t bytes) {
  const auto found = entries.find(key);
  if (found != entries.end() && found->second.in_build) {
    throw Error(ErrorCode::kInternal, fmt::format("packed weight '{}' is created twice", key));
  }
  Stored stored;
  stored.bytes = allocate(bytes, stored.offset);
  stored.in_build = true;
  entries.insert_or_assign(std::string(key), stored);
  return stored.bytes;
}

void WeightCache::Impl::publish() {
  if (in_memory || !temp) return;
  // A valid file that lacked something is replaced by one that has all of both.
  for (auto& [key, stored] : entries) {
    if (stored.in_build) continue;
    Stored copy;
    copy.bytes = allocate(stored.bytes.size(), copy.offset);
    copy.in_build = true;
    std::ranges::copy(stored.bytes, copy.bytes.begin());
    stored = copy;
  }
  CacheIndex index{fingerprint, layout, {}};
  for (const auto& [key, stored] : entries) {
    index.entries.emplace(key, CacheEntry{stored.offset, stored.bytes.size(), cache_checksum(stored.bytes)});
  }
  const auto index_bytes = encode_index(index);
  CacheHeader header;
  header.index_offset = end;
  header.index_bytes = index_bytes.size();
  header.index_checksum = cache_checksum(index_bytes);
  header.file_bytes = end + index_bytes.size();
  header.boot_id = current_boot_id();
  int error = write_all(temp.get(), index_bytes, end);
  if (error == 0) error = write_all(temp.get(), encode_header(header), 0);
  if (error == 0 && ::rename(temp_path.c_str(), file.c_str()) != 0) error = errno;
  if (error != 0) {
    log::warn("{}: cannot be published ({}): packed weights are built again at the next start", file.string(),
              std::strerror(error));
    abandon();
    return;
  }
  temp.reset();
  complete = true;
}

void WeightCache::Impl::abandon() {
  if (!temp) return;
  ::unlink(temp_path.c_str());
  temp.reset();
}

// Nothing that was handed out can change any more; what is created from here on goes to a new file.
void WeightCache::Impl::seal() {
  chunk = {};
  for (auto& [key, stored] : entries) stored.in_build = false;
  for (const Mapping& map : mappings) map.make_read_only();
}

// ---------------------------------------------------------------- the face

WeightCache::WeightCache(fs::path directory, std::string_view fingerprint, std::string_view layout)
    : impl_(std::make_shared<Impl>()) {
  impl_->directory = std::move(directory);
  impl_->file = impl_->directory / file_name(fingerprint, layout);
  impl_->fingerprint = fingerprint;
  impl_->layout = layout;
  impl_->map_existing();
}

WeightCache::~WeightCache() { impl_->abandon(); }

bool WeightCache::complete() const { return impl_->complete; }

std::optional<std::span<const std::byte>> WeightCache::find(std::string_view key) const {
  const auto entry = impl_->entries.find(key);
  if (entry == impl_->entries.end()) return std::nullopt;
  return entry->second.bytes;
}

std::span<std::byte> WeightCache::create(std::string_view key, std::size_t bytes) {
  return impl_->create(key, bytes);
}

void WeightCache::commit() {
  try {
    impl_->publish();
  } catch (const Error& error) {
    log::warn("{}: packed weights are built again at the next start", error.full());
    impl_->abandon();
  }
  impl_->seal();
}

std::shared_ptr<const void> WeightCache::keep_alive() const { return impl_; }

std::shared_ptr<WeightMapping> WeightCache::mapping() const { return impl_->existing; }

}  // namespace mlxs
