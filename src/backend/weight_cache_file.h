// The system calls of the packed weights' file: a descriptor, a writable mapping, blocks that are really
// there. Everything reports the system's errno and logs nothing: what a failure means is the cache's to say.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace mlxs {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { reset(); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class Mapping {
 public:
  // fd -1: anonymous memory. Failure is MAP_FAILED with errno, visible as !*this.
  Mapping(int fd, std::uint64_t offset, std::size_t bytes, int protection)
      : address_(::mmap(nullptr, bytes, protection, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd,
                        static_cast<off_t>(offset))),
        bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, MAP_FAILED)), bytes_(other.bytes_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (address_ != MAP_FAILED) ::munmap(address_, bytes_);
  }
  explicit operator bool() const { return address_ != MAP_FAILED; }
  std::span<std::byte> span() const { return {static_cast<std::byte*>(address_), bytes_}; }
  void make_read_only() const { (void)::mprotect(address_, bytes_, PROT_READ); }

 private:
  void* address_;
  std::size_t bytes_;
};

// Both return an errno, 0 for success.
int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset);
// Blocks are really allocated: a later store into the mapping must not die of a full disk.
int allocate_blocks(int fd, std::uint64_t offset, std::size_t bytes);

}  // namespace mlxs
