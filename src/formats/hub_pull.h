// Fetches a model from a Hugging Face hub into the hub's cache: only the files it needs, several at once,
// each resumed where an earlier pull stopped and checked by size and hash before it gets its name. Blocking;
// two pulls at once share the work. The revision's name points at the new files only when all are there.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/hub_cache.h"
#include "formats/hub_client.h"
#include "formats/pull.h"

namespace mlxs {

// What to fetch of a repository, and what to open then: "" is the snapshot's folder.
struct HubChoice {
  std::vector<HubFile> files;
  std::string open;
};
// Throws kModelNotFound if the repository holds no such model (lists the quantizations), or none at all.
HubChoice choose_hub_files(const HubRepo& repo, const HubRef& ref);

// The folder or .gguf file. progress may be empty; it is called by this thread. Offline, or if the hub cannot
// be reached, what the cache has is good enough.
std::filesystem::path pull_from_hub(const HubRef& ref, const HubSettings& settings, const HubCache& cache,
                                    const PullCallback& progress);

}  // namespace mlxs
