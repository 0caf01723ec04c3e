// Names to files: aliases, paths, "org/repo"; what is in the model cache; fetching the embedded default
// model. Stateless but for the cache directory; safe from any thread. Unknown names throw kModelNotFound.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

// $MLXS_CACHE_DIR, else $XDG_CACHE_HOME/mlx-serving, else ~/.cache/mlx-serving. models/ and packed/ lie
// below.
std::filesystem::path cache_directory();

struct CatalogEntry {
  std::string name;            // what the user types: "smollm2"
  std::filesystem::path path;  // the file or folder
  std::uint64_t bytes = 0;
  std::int64_t modified_unix_s = 0;
};

struct PullProgress {
  std::string stage;  // "waiting" (for another pull), "downloading", "verifying", "unpacking"
  std::uint64_t done_bytes = 0;
  std::uint64_t total_bytes = 0;  // 0: unknown
};

class Catalog {
 public:
  explicit Catalog(std::filesystem::path cache_dir = cache_directory());

  std::vector<CatalogEntry> list() const;    // models in the cache, by name
  std::vector<std::string> aliases() const;  // names that pull() can fetch
  // An alias, a path that exists or a cached "org/repo" → the file or folder ("smollm2" is the alias,
  // "./smollm2" a path). Throws kModelNotFound (near names, how to pull).
  std::filesystem::path resolve(std::string_view name) const;
  // The name a model is served under: the alias or repo, else the file's stem or the folder's name.
  std::string display_name(std::string_view name) const;
  // Fetches an alias if absent; verifies pinned SHA-256; atomic rename; a re-run resumes at the first
  // unfinished stage. Two pulls at once: the second waits for the first (file lock). Returns the file.
  std::filesystem::path pull(std::string_view name,
                             const std::function<void(const PullProgress&)>& progress) const;
  // Removes a cached model, its packed weights (in packed/, named by fingerprint) and what a pull left half
  // done; returns the bytes freed. Throws kModelNotFound.
  std::uint64_t remove(std::string_view name) const;

 private:
  std::optional<CatalogEntry> find_cached(std::string_view name) const;
  [[noreturn]] void throw_unknown(std::string_view name) const;

  std::filesystem::path cache_dir_;
};

}  // namespace mlxs
