// What people want to know of a model file before they load it. Pure; reads metadata and the tensor table
// only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "formats/model_file.h"

namespace mlxs {

struct ModelSummary {
  std::string architecture;
  std::string quantization;  // "Q4_1, 5.9 bits a weight", "MLX4 in groups of 64, 4.5 bits a weight"
  std::string licence;       // as the file or the README.md beside it says; empty: neither does
  std::int64_t parameters = 0;
  std::uint64_t tensor_bytes = 0;         // with scales
  std::map<std::string_view, int> types;  // tensors of each storage type
  // 0: the file does not say.
  std::int64_t context = 0, layers = 0, hidden = 0, heads = 0, kv_heads = 0, vocabulary = 0, experts = 0;
  std::int64_t feed_forward = 0;  // the widest, experts' included
  bool has_chat_template = false;
  std::uint64_t kv_bytes_per_token = 0;  // keys and values of all layers, 16 bits each
};

ModelSummary summarize(const ModelFile& file);

}  // namespace mlxs
