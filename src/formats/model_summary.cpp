#include "formats/model_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <optional>

namespace mlxs {
namespace {

// "license: apache-2.0" of a README's front matter.
std::string readme_licence(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line, licence, name;
  const auto value = [&](std::string_view key) -> std::optional<std::string> {
    if (!line.starts_with(key)) return std::nullopt;
    std::string text = line.substr(key.size());
    std::erase_if(text, [](char c) { return c == ' ' || c == '"' || c == '\'' || c == '\r'; });
    return text.substr(0, 80);
  };
  if (!std::getline(file, line) || !line.starts_with("---")) return {};
  for (int i = 0; i < 1000 && std::getline(file, line) && !line.starts_with("---"); ++i) {
    if (const auto text = value("license:")) licence = *text;
    if (const auto text = value("license_name:")) name = *text;
  }
  return licence == "other" && !name.empty() ? name : licence;
}

std::string licence_of(const ModelFile& file) {
  for (const char* key : {"general.license", "general.license.name"}) {
    if (const std::string_view text = file.get_string(key, ""); !text.empty()) return std::string(text);
  }
  std::error_code ignored;
  const auto& path = file.path();
  const auto folder = std::filesystem::is_directory(path, ignored) ? path : path.parent_path();
  return readme_licence(folder / "README.md");
}

std::int64_t elements_of(const TensorInfo& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string quantization_of(const ModelFile& file, const ModelSummary& summary) {
  struct Share {
    std::uint64_t bytes = 0;
    int group = 0;
  };
  std::map<DType, Share> shares;
  for (const TensorInfo& tensor : file.tensors()) {
    Share& share = shares[tensor.type];
    share.bytes += tensor.bytes.size();
    share.group = tensor.scales.group;
  }
  if (shares.empty() || summary.parameters == 0) return {};
  const auto most =
      std::ranges::max_element(shares, {}, [](const auto& entry) { return entry.second.bytes; });
  const double bits =
      8.0 * static_cast<double>(summary.tensor_bytes) / static_cast<double>(summary.parameters);
  return fmt::format("{}{}, {:.1f} bits a weight", dtype_info(most->first).name,
                     most->second.group > 0 ? fmt::format(" in groups of {}", most->second.group) : "", bits);
}

// Keys and values that one token leaves in the cache of all layers.
std::uint64_t kv_bytes_per_token(const ModelFile& file, const ModelSummary& s, const std::string& prefix) {
  if (s.layers <= 0 || s.heads <= 0) return 0;
  const std::int64_t head = s.hidden / s.heads;
  const std::int64_t key = file.get_int(prefix + "attention.key_length", head);
  const std::int64_t value = file.get_int(prefix + "attention.value_length", head);
  const std::int64_t heads = s.layers * s.kv_heads;
  if (file.has(prefix + "attention.kv_lora_rank")) {  // one latent, as key and value, and a rotated key
    const std::int64_t rank = file.get_int(prefix + "attention.kv_lora_rank");
    const std::int64_t rotated = file.get_int(prefix + "rope.dimension_count", 0);
    return 2 * static_cast<std::uint64_t>(std::max<std::int64_t>(0, s.layers * (2 * rank + rotated)));
  }
  return 2 * static_cast<std::uint64_t>(std::max<std::int64_t>(0, heads * (key + value)));
}

}  // namespace

ModelSummary summarize(const ModelFile& file) {
  ModelSummary s;
  s.architecture = file.architecture();
  const std::string prefix = s.architecture + ".";
  // Some GGUF files list a number for each layer: the largest counts.
  const auto number = [&](const char* key, std::int64_t fallback) {
    const auto entry = file.metadata().find(prefix + key);
    if (entry == file.metadata().end()) return fallback;
    if (const auto* list = std::get_if<std::vector<std::int64_t>>(&entry->second)) {
      return list->empty() ? fallback : *std::ranges::max_element(*list);
    }
    return file.get_int(prefix + key);
  };
  for (const TensorInfo& tensor : file.tensors()) {
    s.parameters += elements_of(tensor);
    s.tensor_bytes += tensor.bytes.size() + tensor.scales.scales.size() + tensor.scales.biases.size();
    ++s.types[dtype_info(tensor.type).name];
  }
  s.context = number("context_length", 0);
  s.layers = number("block_count", 0);
  s.hidden = number("embedding_length", 0);
  s.heads = number("attention.head_count", 0);
  s.kv_heads = number("attention.head_count_kv", s.heads);
  s.experts = number("expert_count", 0);
  s.feed_forward = std::max(number("feed_forward_length", 0), number("expert_feed_forward_length", 0));
  if (const TensorInfo* table = file.find_tensor("token_embd.weight")) s.vocabulary = table->shape.front();
  s.has_chat_template = file.has("tokenizer.chat_template");
  s.quantization = quantization_of(file, s);
  s.licence = licence_of(file);
  s.kv_bytes_per_token = kv_bytes_per_token(file, s, prefix);
  return s;
}

}  // namespace mlxs
