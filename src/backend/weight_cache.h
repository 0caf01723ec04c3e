// Packed weights of one model on disk: written once, mapped ever after, shared between processes by the page
// cache. One file a (model file, backend layout) pair under the cache directory; built in a temporary file,
// renamed when complete. Used by the loading thread only. A damaged, foreign or stale file is deleted and
// rebuilt, with a log line.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mlxs {

class WeightMapping;

class WeightCache {
 public:
  // fingerprint: identifies the source file(s) (path, size, mtime, header hash) and must match what the file
  // was built from. layout: the backend's layout name and version ("cpu-avx512-3"). directory: created if
  // absent. If the directory cannot be written, the cache works in memory and says so once in the log.
  WeightCache(std::filesystem::path directory, std::string_view fingerprint, std::string_view layout);
  ~WeightCache();  // commit() not called: the temporary file is removed
  WeightCache(const WeightCache&) = delete;
  WeightCache& operator=(const WeightCache&) = delete;

  bool complete() const;  // a valid file was mapped: every find() that was stored answers

  // The entry as stored (64-byte aligned), or nullopt. The span lives as long as any keep_alive() token.
  std::optional<std::span<const std::byte>> find(std::string_view key) const;
  // A new 64-byte aligned entry to fill before commit(). Never nullptr; throws kIo when the disk is full.
  std::span<std::byte> create(std::string_view key, std::size_t bytes);
  // Publishes what was created: index, checksums, fsync-free rename (a file of an earlier boot is verified in
  // full once). Spans stay valid and become read-only. A full disk costs only the cache: logged, not thrown.
  void commit();

  // Keeps the mapping alive; every Weight holds one.
  std::shared_ptr<const void> keep_alive() const;
  // Of a file that was found complete: what find() answers lies in it. Else null.
  std::shared_ptr<WeightMapping> mapping() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mlxs
