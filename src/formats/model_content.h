// What a reader of any format hands to ModelFile: canonical metadata (GGUF's keys), tensors under canonical
// (GGUF's) names, and the memory that both point into. Filled by one thread in ModelFile::open(); immutable
// after.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/model_file.h"

namespace mlxs {

struct ModelContent {
  std::map<std::string_view, MetaValue, std::less<>> metadata;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, std::size_t> tensor_index;
  std::unordered_map<std::string_view, std::string_view> stored_names;  // of tensors that were renamed

  std::deque<std::string> texts;                    // strings that no mapped file holds
  std::vector<std::unique_ptr<MappedFile>> maps;    // empty: opened from memory
  std::vector<std::span<const std::byte>> headers;  // what the fingerprint hashes
  std::vector<std::span<const std::byte>> data;     // tensor bytes: not needed any more once packed
  std::uint64_t file_bytes = 0;
  std::int64_t modified_ns = 0;  // of the newest file

  // A view of the text that lives as long as this content.
  std::string_view keep(std::string text) { return texts.emplace_back(std::move(text)); }
  // Replaces what the key had.
  void set(std::string key, MetaValue value) {
    const auto found = metadata.find(key);
    if (found != metadata.end()) {
      found->second = std::move(value);
    } else {
      metadata.emplace(keep(std::move(key)), std::move(value));
    }
  }
  // Maps a file that counts as part of the model.
  const MappedFile& map(const std::filesystem::path& path) {
    const MappedFile& file = *maps.emplace_back(std::make_unique<MappedFile>(path));
    file_bytes += file.bytes().size();
    modified_ns = std::max(modified_ns, file.modified_ns());
    return file;
  }
};

}  // namespace mlxs
