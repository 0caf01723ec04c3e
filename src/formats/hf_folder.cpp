#include "formats/hf_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <system_error>

#include "formats/hf_config.h"
#include "formats/hf_tensors.h"
#include "formats/hf_tokenizer.h"
#include "formats/json_file.h"
#include "formats/quote.h"
#include "formats/safetensors.h"
#include "formats/sentence_settings.h"
#include "formats/weight_index.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The files that hold the weights, and what the index says of them.
struct Shards {
  std::vector<fs::path> files;
  WeightIndex index;
};

Shards shards_of(const fs::path& folder, ModelContent& content) {
  Shards shards;
  if (const fs::path path = folder / "model.safetensors.index.json"; is_there(path)) {
    const auto& file = *content.maps.emplace_back(std::make_unique<MappedFile>(path));
    shards.index = parse_weight_index(file.bytes(), path.string());
    std::set<std::string> names;
    for (const auto& [tensor, name] : shards.index.file_of) names.insert(name);
    for (const std::string& name : names) {
      if (!is_there(folder / name)) {
        throw Error(
            ErrorCode::kModelLoad,
            fmt::format("{}: the index names the file {}, which is missing", folder.string(), quote(name)),
            "the download did not complete: fetch the model again");
      }
      shards.files.push_back(folder / name);
    }
    return shards;
  }
  if (const fs::path whole = folder / "model.safetensors"; is_there(whole)) {
    shards.files = {whole};
    return shards;
  }
  shards.files = safetensors_in(folder);
  if (shards.files.empty()) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: the folder holds no .safetensors file", folder.string()),
                "the download did not complete, or the model is published in another form (.bin, .pth)");
  }
  return shards;
}

std::vector<StoredTensor> read_shards(const Shards& shards, ModelContent& content) {
  std::vector<StoredTensor> stored;
  std::map<std::string, std::string> file_of;  // tensor → the file it was found in
  for (const fs::path& path : shards.files) {
    const MappedFile& map = content.map(path);
    SafetensorsContent file = parse_safetensors(map.bytes(), path.string());
    content.headers.push_back(map.bytes().first(file.header_bytes));
    content.data.push_back(map.bytes().subspan(file.header_bytes));
    for (StoredTensor& tensor : file.tensors) {
      const auto [entry, fresh] = file_of.emplace(tensor.name, path.filename().string());
      if (!fresh)
        fail_json(path.string(), fmt::format("tensor {} is in {} too", quote(tensor.name), entry->second));
      stored.push_back(std::move(tensor));
    }
  }
  for (const auto& [tensor, file] : shards.index.file_of) {
    const auto found = file_of.find(tensor);
    if (found != file_of.end() && found->second == file) continue;
    fail_json((shards.files.front().parent_path() / file).string(),
              fmt::format("tensor {} is missing, the index says it is here", quote(tensor)));
  }
  return stored;
}

}  // namespace

std::vector<fs::path> safetensors_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") files.push_back(it->path());
  }
  std::ranges::sort(files);
  return files;
}

bool is_hf_folder(const fs::path& folder) {
  return is_there(folder / "config.json") || !safetensors_in(folder).empty();
}

ModelContent open_hf_folder(const fs::path& folder) {
  ModelContent content;
  const fs::path config_path = folder / "config.json";
  if (!is_there(config_path)) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: config.json is missing", folder.string()),
                "download the whole repository, not the weights alone");
  }
  const MappedFile& config_file = *content.maps.emplace_back(std::make_unique<MappedFile>(config_path));
  const nlohmann::json config = parse_json_object(config_file.bytes(), config_path.string());
  const HfConfig settings = read_hf_config(config, config_path.string(), content);
  content.headers.push_back(config_file.bytes());
  read_hf_tokenizer(folder, config, content);
  if (settings.family->encoder) read_sentence_settings(folder, settings.family->architecture, content);
  const std::vector<StoredTensor> stored = read_shards(shards_of(folder, content), content);
  add_hf_tensors(stored, settings, folder.string(), content);
  return content;
}

}  // namespace mlxs
