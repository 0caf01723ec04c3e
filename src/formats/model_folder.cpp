#include "formats/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <system_error>

#include "formats/hf_folder.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

bool all_digits(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// "name-00002-of-00003" → "name" and 3; 0 parts if the stem is not of that form.
struct SplitName {
  std::string_view base;
  int parts = 0;
};

SplitName split_name(std::string_view stem) {
  constexpr std::size_t kSuffix = std::string_view("-00001-of-00003").size();
  if (stem.size() <= kSuffix) return {};
  const std::string_view suffix = stem.substr(stem.size() - kSuffix);
  const bool matches = suffix[0] == '-' && all_digits(suffix.substr(1, 5)) && suffix.substr(6, 4) == "-of-" &&
                       all_digits(suffix.substr(10));
  if (!matches) return {};
  return {stem.substr(0, stem.size() - kSuffix), std::stoi(std::string(suffix.substr(10)))};
}

fs::path part_path(const fs::path& folder, std::string_view base, int part, int parts) {
  return folder / fmt::format("{}-{:05}-of-{:05}.gguf", base, part, parts);
}

}  // namespace

std::vector<fs::path> gguf_files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->path().extension() == ".gguf" && it->is_regular_file(ignored)) files.push_back(it->path());
  }
  if (error) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: cannot list the folder: {}", folder.string(), error.message()),
                "give this user permission to read it");
  }
  std::ranges::sort(files);
  return files;
}

std::vector<fs::path> gguf_parts(const fs::path& file) {
  const std::string stem = file.stem().string();
  const auto [base, parts] = split_name(stem);
  if (file.extension() != ".gguf" || parts <= 1) return {file};
  std::vector<fs::path> paths;
  for (int part = 1; part <= parts; ++part) {
    const fs::path path = part_path(file.parent_path(), base, part, parts);
    std::error_code ignored;
    if (!fs::exists(path, ignored)) {
      throw Error(ErrorCode::kModelLoad,
                  fmt::format("{}: part {} of {} is missing", path.string(), part, parts),
                  "the download did not complete: fetch the missing part into the same folder");
    }
    paths.push_back(path);
  }
  return paths;
}

std::vector<fs::path> weight_files_of(const fs::path& model) {
  std::error_code ignored;
  if (!fs::is_directory(model, ignored)) return gguf_parts(model);
  std::vector<fs::path> files = gguf_files_in(model);
  return files.empty() ? safetensors_in(model) : files;
}

fs::path single_model_in(const fs::path& folder) {
  const auto files = gguf_files_in(folder);
  if (files.empty()) {
    if (is_hf_folder(folder)) return folder;
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: the folder holds no model: no .gguf file, no config.json", folder.string()),
                "give a .gguf file or a folder that holds a model");
  }
  const std::string stem = files.front().stem().string();
  const auto same_model = [&, first = split_name(stem)](const fs::path& file) {
    const std::string other_stem = file.stem().string();
    const SplitName other = split_name(other_stem);
    return first.parts > 0 && other.parts == first.parts && other.base == first.base;
  };
  if (files.size() == 1 || std::ranges::all_of(files, same_model)) return files.front();
  std::string names;
  constexpr std::size_t kShown = 8;
  for (std::size_t i = 0; i < std::min(files.size(), kShown); ++i) {
    names += (i > 0 ? ", " : "") + files[i].filename().string();
  }
  if (files.size() > kShown) names += ", …";
  throw Error(
      ErrorCode::kModelLoad,
      fmt::format("{}: the folder holds {} .gguf files, one was expected", folder.string(), files.size()),
      "give one of them: " + names);
}

}  // namespace mlxs
