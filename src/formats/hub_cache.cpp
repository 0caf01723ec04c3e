#include "formats/hub_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <system_error>

#include "formats/catalog.h"
#include "formats/hf_folder.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kModels = "models--";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

[[noreturn]] void refuse(const fs::path& path, std::string_view what, const std::error_code& error) {
  throw Error(ErrorCode::kIo, fmt::format("{}: cannot be {}: {}", path.string(), what, error.message()),
              "give this user permission to write there, or set HF_HUB_CACHE to another folder");
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) refuse(folder, "created", error);
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    paths.push_back(it->path());
  }
  std::ranges::sort(paths);
  return paths;
}

// Every file below the folder, relative to it, that leads to existing bytes.
std::vector<std::string> files_below(const fs::path& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) files.push_back(it->path().lexically_relative(folder).string());
  }
  std::ranges::sort(files);
  return files;
}

void add_file(HubModel& model, const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return;
  model.bytes += static_cast<std::uint64_t>(status.st_size);
  model.modified_unix_s = std::max(model.modified_unix_s, std::int64_t{status.st_mtime});
}

// "models--org--repo" → "org/repo"; the names of repositories hold no "--".
std::optional<std::string> repo_of(const std::string& folder) {
  if (!folder.starts_with(kModels)) return std::nullopt;
  std::string repo = folder.substr(kModels.size());
  const std::size_t split = repo.find("--");
  if (split == std::string::npos) return std::nullopt;
  return repo.replace(split, 2, "/");
}

std::vector<HubModel> models_in(const fs::path& snapshot, const std::string& repo) {
  std::vector<HubModel> models;
  const std::vector<std::string> files = files_below(snapshot);
  for (const GgufVariant& variant : gguf_variants(files)) {
    HubModel model{repo + ":" + variant.tag, snapshot / variant.files.front()};
    for (const std::string& file : variant.files) add_file(model, snapshot / file);
    models.push_back(std::move(model));
  }
  std::error_code ignored;
  if (fs::exists(snapshot / "config.json", ignored) && !safetensors_in(snapshot).empty()) {
    HubModel model{repo, snapshot};
    for (const std::string& file : files) {
      if (!file.ends_with(".gguf")) add_file(model, snapshot / file);
    }
    models.push_back(std::move(model));
  }
  return models;
}

}  // namespace

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_plain_path(std::string_view path) {
  if (path.empty() || path.size() > 1024 || path.front() == '/' || path.back() == '/') return false;
  if (path.find_first_of(std::string_view("\\\0", 2)) != std::string_view::npos) return false;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

fs::path hub_home() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) return fs::absolute(home);
  if (const fs::path xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "huggingface";
  if (const fs::path home = variable("HOME"); home.is_absolute()) return home / ".cache/huggingface";
  return cache_directory() / "huggingface";
}

fs::path hub_cache_directory() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string path = variable(name); !path.empty()) return fs::absolute(path);
  }
  return hub_home() / "hub";
}

fs::path HubCache::repo_folder(std::string_view repo) const {
  std::string name(kModels);
  for (const char c : repo) name += c == '/' ? std::string("--") : std::string(1, c);
  return root_ / name;
}
fs::path HubCache::blob(std::string_view repo, std::string_view etag) const {
  return repo_folder(repo) / "blobs" / etag;
}
fs::path HubCache::snapshot(std::string_view repo, std::string_view commit) const {
  return repo_folder(repo) / "snapshots" / commit;
}
fs::path HubCache::lock(std::string_view repo, std::string_view etag) const {
  return root_ / ".locks" / repo_folder(repo).filename() / (std::string(etag) + ".lock");
}

std::optional<std::string> HubCache::commit_of(std::string_view repo, std::string_view revision) const {
  std::string commit(revision);
  if (!is_hex(commit, 40)) {
    std::ifstream file(repo_folder(repo) / "refs" / revision);
    if (!(file >> commit) || !is_hex(commit, 40)) return std::nullopt;
  }
  std::error_code ignored;
  return fs::is_directory(snapshot(repo, commit), ignored) ? std::optional(commit) : std::nullopt;
}

void HubCache::set_commit(std::string_view repo, std::string_view revision, std::string_view commit) const {
  if (revision == commit) return;
  const fs::path path = repo_folder(repo) / "refs" / revision;
  make_folder(path.parent_path());
  // Renamed into place: a reader sees the old commit or the new one.
  const fs::path part = path.string() + fmt::format(".{}.tmp", ::getpid());
  std::ofstream file(part, std::ios::binary);
  file << commit;
  file.close();
  std::error_code error = file ? std::error_code{} : std::make_error_code(std::errc::io_error);
  if (!error) fs::rename(part, path, error);
  if (error) refuse(path, "written", error);
}

void HubCache::link(std::string_view repo, std::string_view commit, std::string_view path,
                    std::string_view etag) const {
  if (!is_plain_path(path)) throw Error(ErrorCode::kInternal, "an unchecked path reached the hub cache");
  const fs::path pointer = snapshot(repo, commit) / path;
  make_folder(pointer.parent_path());
  const fs::path target = fs::path(blob(repo, etag)).lexically_relative(pointer.parent_path());
  std::error_code error;
  if (fs::read_symlink(pointer, error) == target && !error) return;
  fs::remove(pointer, error);
  error.clear();
  fs::create_symlink(target, pointer, error);
  if (error && error != std::errc::file_exists)
    refuse(pointer, "linked", error);  // another pull was as quick
}

std::vector<HubModel> HubCache::list() const {
  std::vector<HubModel> models;
  for (const fs::path& folder : entries_of(root_)) {
    const auto repo = repo_of(folder.filename().string());
    if (!repo) continue;
    std::optional<std::string> commit = commit_of(*repo, "main");
    if (!commit) {
      fs::file_time_type newest = fs::file_time_type::min();
      for (const fs::path& snapshot : entries_of(folder / "snapshots")) {
        std::error_code error;
        const auto time = fs::last_write_time(snapshot, error);
        if (error || (commit && time <= newest)) continue;
        newest = time;
        commit = snapshot.filename().string();
      }
    }
    if (!commit) continue;
    std::ranges::move(models_in(snapshot(*repo, *commit), *repo), std::back_inserter(models));
  }
  return models;
}

std::optional<fs::path> HubCache::find(const HubRef& ref) const {
  const auto commit = commit_of(ref.repo, ref.revision);
  if (!commit) return std::nullopt;
  const std::vector<HubModel> models = models_in(snapshot(ref.repo, *commit), ref.repo);
  std::vector<GgufVariant> variants;  // to choose by the same rules as a pull does
  for (const HubModel& model : models) {
    if (model.name == ref.repo && ref.quant.empty()) return model.path;
    if (model.name != ref.repo)
      variants.push_back({model.name.substr(ref.repo.size() + 1), {model.path.string()}});
  }
  const GgufVariant* variant = choose_variant(variants, ref.quant);
  return variant == nullptr ? std::nullopt : std::optional(fs::path(variant->files.front()));
}

std::optional<std::uint64_t> HubCache::remove(const HubRef& ref) const {
  const fs::path folder = repo_folder(ref.repo);
  std::error_code error;
  if (!fs::is_directory(folder, error)) return std::nullopt;
  std::uint64_t freed = 0;
  if (ref.quant.empty()) {
    for (const fs::path& blob : entries_of(folder / "blobs")) {
      if (const auto size = fs::file_size(blob, error); !error) freed += size;
    }
    fs::remove_all(folder, error);
    if (error) refuse(folder, "removed", error);
    fs::remove_all(root_ / ".locks" / folder.filename(), error);
    return freed;
  }
  bool found = false;
  std::set<fs::path> blobs;
  for (const fs::path& snapshot : entries_of(folder / "snapshots")) {
    const auto variants = gguf_variants(files_below(snapshot));
    const GgufVariant* variant = choose_variant(variants, ref.quant);
    if (variant == nullptr) continue;
    found = true;
    for (const std::string& file : variant->files) {
      if (const fs::path blob = fs::canonical(snapshot / file, error); !error) blobs.insert(blob);
      fs::remove(snapshot / file, error);
      if (error) refuse(snapshot / file, "removed", error);
    }
  }
  if (!found) return std::nullopt;
  for (const fs::path& blob : blobs) {
    const auto size = fs::file_size(blob, error);
    if (!error && fs::remove(blob, error)) freed += size;
  }
  return freed;
}

}  // namespace mlxs
