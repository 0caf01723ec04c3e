// The Hugging Face hub's own cache on disk, shared with Python's huggingface_hub: models--ORG--REPO/ with
// blobs/ETAG, snapshots/COMMIT/PATH (links to blobs) and refs/REVISION. Reads what either wrote; what it
// adds, either can read. Stateless but for the folder; any thread. Throws kIo.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/hub_ref.h"

namespace mlxs {

// $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
std::filesystem::path hub_cache_directory();
std::filesystem::path hub_home();  // $HF_HOME or its default: where `hf auth login` leaves the token

struct HubModel {
  std::string name;            // "org/repo", of GGUF files "org/repo:Q4_K_M"
  std::filesystem::path path;  // the snapshot's folder, or its .gguf file (first part)
  std::uint64_t bytes = 0;
  std::int64_t modified_unix_s = 0;
};

class HubCache {
 public:
  explicit HubCache(std::filesystem::path root = hub_cache_directory()) : root_(std::move(root)) {}

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path repo_folder(std::string_view repo) const;
  std::filesystem::path blob(std::string_view repo, std::string_view etag) const;
  std::filesystem::path snapshot(std::string_view repo, std::string_view commit) const;
  std::filesystem::path lock(std::string_view repo, std::string_view etag) const;

  // The commit that a revision stood for when it was last fetched.
  std::optional<std::string> commit_of(std::string_view repo, std::string_view revision) const;
  void set_commit(std::string_view repo, std::string_view revision, std::string_view commit) const;
  // Makes snapshots/COMMIT/PATH point at the blob. path: checked by is_plain_path().
  void link(std::string_view repo, std::string_view commit, std::string_view path,
            std::string_view etag) const;

  // Models that are whole enough to open, of every repository's newest "main", or newest snapshot.
  std::vector<HubModel> list() const;
  // A folder or .gguf file; nullopt if it is not here.
  std::optional<std::filesystem::path> find(const HubRef& ref) const;
  // Removes the repository, or with a quantization its files alone; the bytes freed, nullopt if it is not
  // here.
  std::optional<std::uint64_t> remove(const HubRef& ref) const;

 private:
  std::filesystem::path root_;
};

// Relative, without "..", safe to create below a folder. Names come from a server.
bool is_plain_path(std::string_view path);
bool is_hex(std::string_view text, std::size_t digits);

}  // namespace mlxs
