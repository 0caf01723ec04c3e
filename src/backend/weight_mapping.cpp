#include "backend/weight_mapping.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>

namespace mlxs {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kMostPieces =
    512;  // each may stay an entry of its own in the kernel's list of mappings

std::size_t round_up(std::size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

// Address space of whole huge pages for `bytes`, of which nothing is accessible yet; null if there is none.
std::byte* reserve(std::size_t bytes) {
  const std::size_t size = round_up(bytes);
  void* address = ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(address);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before > 0) ::munmap(begin, before);
  ::munmap(begin + before + size, kHugePage - before);
  return begin + before;
}

#ifdef __linux__
bool system_gives_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  return std::getline(file, line) && line.find("[never]") == std::string::npos;
}
#endif

}  // namespace

WeightMapping::WeightMapping(int fd, std::size_t bytes) : bytes_(bytes) {
  std::byte* base = reserve(bytes);
  if (base == nullptr) return;
  if (::mmap(base, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const int reason = errno;
    ::munmap(base, round_up(bytes));
    errno = reason;
    return;
  }
  base_ = base;
}

WeightMapping::~WeightMapping() {
  if (base_ != nullptr) ::munmap(base_, round_up(bytes_));
}

bool WeightMapping::can_move([[maybe_unused]] std::size_t available) const {
#ifdef __linux__
  const char* wish = std::getenv("MLXS_CPU_HUGE_PAGES");
  if (wish != nullptr && std::string_view(wish) == "off") return false;
  return available / 2 >= bytes_ && system_gives_huge_pages();
#else
  return false;
#endif
}

bool WeightMapping::move([[maybe_unused]] ThreadPool& pool, [[maybe_unused]] std::size_t bytes) {
#ifdef __linux__
  const std::size_t whole = bytes_ / kHugePage * kHugePage;  // what is left of the file stays mapped
  const std::size_t piece = std::max(static_cast<std::size_t>(pool.threads()) * kHugePage,
                                     whole / kMostPieces / kHugePage * kHugePage);
  const std::size_t target = std::min(whole, moved_ + bytes);
  while (moved_ < target) {
    const std::size_t size = std::min(piece, whole - moved_);
    std::byte* copy = reserve(size);
    if (copy == nullptr) return false;
    ::mprotect(copy, size, PROT_READ | PROT_WRITE);
    ::madvise(copy, size, MADV_HUGEPAGE);
    pool.parallel_for(
        static_cast<std::int64_t>(size / kHugePage), 1, [&](std::int64_t begin, std::int64_t end, int) {
          const auto at = static_cast<std::size_t>(begin) * kHugePage;
          std::memcpy(copy + at, base_ + moved_ + at, static_cast<std::size_t>(end - begin) * kHugePage);
        });
    ::mprotect(copy, size, PROT_READ);
    if (::mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, base_ + moved_) == MAP_FAILED) {
      ::munmap(copy, size);
      return false;
    }
    moved_ += size;
  }
  return moved_ < whole;
#else
  return false;
#endif
}

}  // namespace mlxs
