// model.safetensors.index.json: which file of a sharded model holds which tensor. Pure; throws kModelLoad.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace mlxs {

struct WeightIndex {
  std::map<std::string, std::string> file_of;  // tensor → file name, without a folder
};

WeightIndex parse_weight_index(std::span<const std::byte> bytes, std::string_view name);

}  // namespace mlxs
