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

// "name-00002-of-00003" → "name"; empty if the stem is not of that form.
std::string_view split_base(std::string_view stem) {
  constexpr std::size_t kSuffix = std::string_view("-00001-of-00003").size();
  if (stem.size() <= kSuffix) return {};
  const std::string_view suffix = stem.substr(stem.size() - kSuffix);
  const bool matches = suffix[0] == '-' && all_digits(suffix.substr(1, 5)) && suffix.substr(6, 4) == "-of-" &&
                       all_digits(suffix.substr(10));
  return matches && suffix != "-00001-of-00001" ? stem.substr(0, stem.size() - kSuffix) : std::string_view{};
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

fs::path single_model_in(const fs::path& folder) {
  const auto files = gguf_files_in(folder);
  if (files.size() == 1) return files.front();
  if (files.empty()) {
    if (is_hf_folder(folder)) return folder;
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: the folder holds no model: no .gguf file, no config.json", folder.string()),
                "give a .gguf file or a folder that holds a model");
  }
  for (const auto& file : files) refuse_split_name(file);
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

void refuse_split_name(const fs::path& file) {
  const std::string stem = file.stem().string();
  const std::string_view base = split_base(stem);
  if (file.extension() != ".gguf" || base.empty()) return;
  throw Error(ErrorCode::kModelLoad,
              fmt::format("{}: is one part of a model split into {} files, which cannot be read yet",
                          file.string(), std::stoi(stem.substr(stem.size() - 5))),
              fmt::format("join the parts first: `llama-gguf-split --merge {}-00001-of-{}.gguf {}.gguf`",
                          base, stem.substr(stem.size() - 5), base));
}

}  // namespace mlxs
