// SHA-256 of a stream, by OpenSSL. One owner, one thread; throws kInternal if the library refuses.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace mlxs {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  std::string finish_hex();  // 64 lower-case digits; ends the stream

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Reads the whole file; on_progress (may be empty) gets the bytes hashed so far. Throws kIo.
std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void(std::uint64_t)>& on_progress = {});

}  // namespace mlxs
