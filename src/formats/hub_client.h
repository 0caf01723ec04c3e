// What a Hugging Face hub says of a repository, and its files' bytes, over HTTP. Blocking; any thread; each
// call retries what may pass (a cut connection, 429, 5xx). Throws kModelNotFound, kUnauthorized,
// kUnavailable, kIo, each saying what to do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/http_client.h"

namespace mlxs {

struct HubSettings {
  std::string endpoint;    // $HF_ENDPOINT, else https://huggingface.co; without a slash at the end
  std::string token;       // $HF_TOKEN, else what `hf auth login` stored
  bool offline = false;    // $HF_HUB_OFFLINE
  int stall_seconds = 30;  // $HF_HUB_DOWNLOAD_TIMEOUT
};
HubSettings hub_settings();  // from the environment

struct HubFile {
  std::string path;  // in the repository
  std::uint64_t size = 0;
  std::string etag;  // name of its blob: SHA-256 of a large file, else git's SHA-1 of it
  bool large() const { return etag.size() == 64; }
};

struct HubRepo {
  std::string commit;
  std::vector<HubFile> files;
};

class HubClient {
 public:
  explicit HubClient(HubSettings settings) : settings_(std::move(settings)) {}

  HubRepo describe(const std::string& repo, const std::string& revision) const;
  // Appends to `part`, which may hold a beginning, until it has file.size bytes. on_size gets its size as it
  // grows (and shrinks, if the server has to start over). Returns early if stopped.
  void download(const std::string& repo, const std::string& commit, const HubFile& file,
                const std::filesystem::path& part, const std::stop_token& stop,
                const std::function<void(std::uint64_t)>& on_size) const;

 private:
  // The answer, once it is one that stands; waits as a 429 says.
  FetchAnswer get(const std::string& url, const std::stop_token& stop) const;
  [[noreturn]] void refuse(const FetchAnswer& answer, const std::string& repo, const std::string& what) const;
  std::vector<std::string> similar(const std::string& repo) const;

  HubSettings settings_;
};

}  // namespace mlxs
