// Names to files: aliases, paths, names on a Hugging Face hub; what is in the model cache and in the hub's;
// fetching what is absent. Stateless but for the folders; safe from any thread. Unknown names throw
// kModelNotFound.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hub_cache.h"

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

struct Removed {
  std::uint64_t bytes = 0;
  bool model_stays = false;  // a file or folder of the user's own: only its packed weights went
};

class Catalog {
 public:
  explicit Catalog(std::filesystem::path cache_dir = cache_directory(), HubCache hub = HubCache());

  std::vector<CatalogEntry> list() const;    // models in both caches, by name
  std::vector<std::string> aliases() const;  // short names that pull() can fetch
  // Whether pull() would try to fetch it: an alias, or "org/repo[@revision][:quantization]" that is no path.
  bool can_pull(std::string_view name) const;
  // An alias, a path that exists or a cached name → the file or folder ("smollm2" is the alias, "./smollm2" a
  // path). Throws kModelNotFound (near names, how to pull).
  std::filesystem::path resolve(std::string_view name) const;
  // The name a model is served under: the alias or repo, else the file's stem or the folder's name.
  std::string display_name(std::string_view name) const;
  // Fetches what is absent: an alias with its pinned SHA-256 (pull.h), a hub's files with theirs
  // (hub_pull.h). A re-run resumes a hub's; two pulls at once take turns. Returns the file or folder.
  std::filesystem::path pull(std::string_view name,
                             const std::function<void(const PullProgress&)>& progress) const;
  // Removes a model from the cache it is in, its packed weights (in packed/, named by fingerprint) and what a
  // pull left half done; of any other file or folder the packed weights alone. Throws kModelNotFound.
  Removed remove(std::string_view name) const;

 private:
  std::optional<CatalogEntry> find_cached(std::string_view name) const;
  Removed remove_packed_of_path(std::string_view name) const;
  [[noreturn]] void throw_unknown(std::string_view name) const;

  std::filesystem::path cache_dir_;
  HubCache hub_;
};

}  // namespace mlxs
