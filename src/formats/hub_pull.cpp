#include "formats/hub_pull.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "base/log.h"
#include "formats/file_lock.h"
#include "formats/near_names.h"
#include "formats/quote.h"
#include "formats/sha256.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kConnections = 8;

// The text files that a model is opened, shown and described with.
bool is_model_text(std::string_view path) {
  static const std::set<std::string_view> kNames{"config.json",
                                                 "generation_config.json",
                                                 "model.safetensors.index.json",
                                                 "tokenizer.json",
                                                 "tokenizer_config.json",
                                                 "chat_template.jinja",
                                                 "chat_template.json",
                                                 "special_tokens_map.json",
                                                 "modules.json",
                                                 "sentence_bert_config.json",
                                                 "1_Pooling/config.json",
                                                 "README.md",
                                                 "LICENSE"};
  return kNames.contains(path);
}

// Git's name of a file's content.
std::string git_sha1_of_file(const fs::path& path, std::uint64_t size) {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  const std::string head = fmt::format("blob {}", size);
  bool good = context && EVP_DigestInit_ex(context.get(), EVP_sha1(), nullptr) == 1 &&
              EVP_DigestUpdate(context.get(), head.c_str(), head.size() + 1) == 1;
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(std::size_t{1} << 20);
  while (good && file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())).gcount() > 0) {
    good = EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(file.gcount())) == 1;
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (!good || EVP_DigestFinal_ex(context.get(), digest, &length) != 1) {
    throw Error(ErrorCode::kInternal, "OpenSSL cannot compute SHA-1");
  }
  return fmt::format("{:02x}", fmt::join(digest, digest + length, ""));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) return;
  throw Error(ErrorCode::kIo, fmt::format("{}: cannot be created: {}", folder.string(), error.message()),
              "give this user permission to write there, or set HF_HUB_CACHE to another folder");
}

class Puller {
 public:
  Puller(const HubRef& ref, const HubSettings& settings, const HubCache& cache, const PullCallback& progress)
      : ref_(ref), client_(settings), cache_(cache), progress_(progress) {}

  fs::path pull() {
    const HubRepo repo = client_.describe(ref_.repo, ref_.revision);
    commit_ = repo.commit;
    HubChoice choice = choose_hub_files(repo, ref_);
    files_ = std::move(choice.files);
    sizes_ = std::vector<std::atomic<std::uint64_t>>(files_.size());
    // Large files first: they take longest.
    std::ranges::stable_sort(files_, std::greater{}, &HubFile::size);
    make_folder(cache_.blob(ref_.repo, "x").parent_path());
    require_space();
    fetch_all();
    for (const HubFile& file : files_) cache_.link(ref_.repo, commit_, file.path, file.etag);
    cache_.set_commit(ref_.repo, ref_.revision, commit_);
    const fs::path folder = cache_.snapshot(ref_.repo, commit_);
    return choice.open.empty() ? folder : folder / choice.open;
  }

 private:
  bool is_whole(const HubFile& file) const {
    std::error_code absent;
    const auto size = fs::file_size(cache_.blob(ref_.repo, file.etag), absent);
    return !absent && size == file.size;
  }
  fs::path part_of(const HubFile& file) const {
    return cache_.blob(ref_.repo, file.etag).string() + ".incomplete";
  }

  void require_space() const {
    std::uint64_t missing = 0;
    for (const HubFile& file : files_) {
      if (is_whole(file)) continue;
      std::error_code absent;
      const auto begun = fs::file_size(part_of(file), absent);
      missing += file.size - std::min(file.size, absent ? 0 : begun);
    }
    std::error_code error;
    const fs::space_info space = fs::space(cache_.root(), error);
    if (error || space.available >= missing) return;
    throw Error(ErrorCode::kIo,
                fmt::format("{}: downloading {} needs {} bytes, {} are free", cache_.root().string(),
                            ref_.repo, missing, static_cast<std::uint64_t>(space.available)),
                "free space there, or set HF_HUB_CACHE to a folder on a larger disk");
  }

  void fetch_all() {
    std::uint64_t total = 0;
    for (const HubFile& file : files_) total += file.size;
    std::vector<std::jthread> workers;
    const std::size_t count = std::min(kConnections, files_.size());
    running_ = count;
    for (std::size_t i = 0; i < count; ++i) workers.emplace_back([this] { work(); });
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      if (!progress_ || failure_) continue;
      std::uint64_t done = 0;
      for (const auto& size : sizes_) done += size;
      const std::string stage = waiting_ ? "waiting" : "downloading";
      lock.unlock();
      try {
        progress_({stage, done, total});
      } catch (...) {
        fail(std::current_exception());
      }
      lock.lock();
    }
    lock.unlock();
    workers.clear();
    if (failure_) std::rethrow_exception(failure_);
  }

  void fail(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    stop_.request_stop();
  }

  void work() {
    for (std::size_t index; !stop_.stop_requested() && (index = next_++) < files_.size();) {
      try {
        fetch(files_[index], sizes_[index]);
      } catch (...) {
        fail(std::current_exception());
      }
    }
    const std::lock_guard lock(mutex_);
    --running_;
    changed_.notify_one();
  }

  void fetch(const HubFile& file, std::atomic<std::uint64_t>& size) {
    if (!is_whole(file)) {
      const fs::path lock_path = cache_.lock(ref_.repo, file.etag);
      make_folder(lock_path.parent_path());
      const FileLock lock(lock_path, [&] {
        log::info("another pull is downloading {} of {}: waiting for it", file.path, ref_.repo);
        waiting_ = true;
      });
      waiting_ = false;
      if (!is_whole(file)) fetch_locked(file, size);
    }
    size = file.size;
  }

  void fetch_locked(const HubFile& file, std::atomic<std::uint64_t>& size) {
    const fs::path part = part_of(file);
    std::error_code absent;
    bool resumed = fs::file_size(part, absent) > 0 && !absent;
    while (true) {
      client_.download(ref_.repo, commit_, file, part, stop_.get_token(),
                       [&](std::uint64_t bytes) { size = bytes; });
      if (stop_.stop_requested()) return;
      const std::string hash = file.large() ? sha256_of_file(part) : git_sha1_of_file(part, file.size);
      if (hash == file.etag) break;
      std::error_code ignored;
      fs::remove(part, ignored);
      if (!resumed) {
        throw Error(
            ErrorCode::kModelLoad,
            fmt::format("{}: {}: its {} is {}, the hub lists {}: it was removed", ref_.repo, file.path,
                        file.large() ? "SHA-256" : "git SHA-1", hash, file.etag),
            "pull again; if it happens again, the endpoint (HF_ENDPOINT) serves another file: do not use it");
      }
      log::warn("{}: {}: what an earlier pull left is damaged: downloading it again", ref_.repo, file.path);
      resumed = false;
    }
    std::error_code error;
    fs::rename(part, cache_.blob(ref_.repo, file.etag), error);
    if (error) {
      throw Error(ErrorCode::kIo, fmt::format("{}: cannot be renamed: {}", part.string(), error.message()),
                  "give this user permission to write there, or set HF_HUB_CACHE to another folder");
    }
  }

  const HubRef& ref_;
  HubClient client_;
  const HubCache& cache_;
  const PullCallback& progress_;
  std::string commit_;
  std::vector<HubFile> files_;
  std::vector<std::atomic<std::uint64_t>> sizes_;  // of each file, so far
  std::atomic<std::size_t> next_ = 0;
  std::atomic<bool> waiting_ = false;
  std::stop_source stop_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t running_ = 0;  // workers
  std::exception_ptr failure_;
};

}  // namespace

HubChoice choose_hub_files(const HubRepo& repo, const HubRef& ref) {
  std::vector<std::string> paths;
  bool has_config = false, has_model = false;
  for (const HubFile& file : repo.files) {
    paths.push_back(file.path);
    has_config |= file.path == "config.json";
    has_model |= file.path.starts_with("model") && file.path.ends_with(".safetensors");
  }
  const auto is_weights = [&](const std::string& path) {
    return path.ends_with(".safetensors") && path.find('/') == std::string::npos &&
           (has_model ? path.starts_with("model") : !path.starts_with("consolidated"));
  };
  const bool has_weights = std::ranges::any_of(paths, is_weights);
  const std::vector<GgufVariant> variants = gguf_variants(paths);

  HubChoice choice;
  std::set<std::string> wanted;
  if (ref.quant.empty() && has_config && has_weights) {
    for (const std::string& path : paths) {
      if (is_weights(path) || is_model_text(path)) wanted.insert(path);
    }
  } else if (const GgufVariant* variant = choose_variant(variants, ref.quant)) {
    wanted.insert(variant->files.begin(), variant->files.end());
    for (const char* path : {"README.md", "LICENSE"}) wanted.insert(path);
    choice.open = variant->files.front();
  } else {
    std::vector<std::string> tags;
    for (const GgufVariant& v : variants) tags.push_back(v.tag);
    if (tags.empty()) {
      const bool pytorch = std::ranges::any_of(
          paths, [](const std::string& p) { return p.ends_with(".bin") || p.ends_with(".pth"); });
      throw Error(ErrorCode::kModelNotFound,
                  fmt::format("{}: holds no model that can be read{}", ref.repo,
                              pytorch ? ", only PyTorch files" : ""),
                  ref.quant.empty() ? "needed: .gguf files, or safetensors with their config.json"
                                    : "it has no .gguf files: leave the quantization out");
    }
    const auto near = near_names(ref.quant, tags);
    const std::string all = fmt::format("{}", fmt::join(tags, ", "));
    if (ref.quant.empty()) {
      throw Error(ErrorCode::kModelNotFound,
                  fmt::format("{}: holds {} models in GGUF form, one must be chosen", ref.repo, tags.size()),
                  fmt::format("for example {}:{}; there are: {}", ref.repo, tags.front(), all));
    }
    throw Error(
        ErrorCode::kModelNotFound, fmt::format("{}: has no quantization {}", ref.repo, quote(ref.quant)),
        fmt::format("{}there are: {}",
                    near.empty() ? "" : fmt::format("did you mean {}? ", fmt::join(near, ", ")), all));
  }
  for (const HubFile& file : repo.files) {
    if (wanted.contains(file.path)) choice.files.push_back(file);
  }
  return choice;
}

fs::path pull_from_hub(const HubRef& ref, const HubSettings& settings, const HubCache& cache,
                       const PullCallback& progress) {
  const auto cached = cache.find(ref);
  if (settings.offline) {
    if (cached) return *cached;
    throw Error(ErrorCode::kModelNotFound,
                fmt::format("{}: is not in {}, and HF_HUB_OFFLINE is set", ref.repo, cache.root().string()),
                "unset HF_HUB_OFFLINE to download it");
  }
  try {
    return Puller(ref, settings, cache, progress).pull();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnavailable || !cached) throw;
    log::warn("{}; using what was downloaded before", error.full());
    return *cached;
  }
}

}  // namespace mlxs
