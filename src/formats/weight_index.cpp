#include "formats/weight_index.h"

#include <fmt/format.h>

#include "formats/json_file.h"
#include "formats/quote.h"

namespace mlxs {

WeightIndex parse_weight_index(std::span<const std::byte> bytes, std::string_view name) {
  const nlohmann::json root = parse_json_object(bytes, name);
  const auto map = root.find("weight_map");
  if (map == root.end() || !map->is_object() || map->empty()) {
    fail_json(name, "holds no 'weight_map' of tensors to files");
  }
  WeightIndex index;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) fail_json(name, fmt::format("tensor {} names no file", quote(tensor)));
    const auto& text = file.get_ref<const std::string&>();
    // Only names beside the index: a downloaded file must not make us read elsewhere.
    const bool plain = text.ends_with(".safetensors") && text.size() <= 255 &&
                       text.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain) {
      fail_json(name, fmt::format("tensor {} names {}, no .safetensors file of this folder", quote(tensor),
                                  quote(text)));
    }
    index.file_of.emplace(tensor, text);
  }
  return index;
}

}  // namespace mlxs
