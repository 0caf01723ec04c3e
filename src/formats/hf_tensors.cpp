#include "formats/hf_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "formats/hf_names.h"
#include "formats/json_file.h"
#include "formats/quote.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

DType code_type(const MlxQuantization& q) {
  if (q.mode == QuantMode::kMxfp4) return DType::kMlxFp4;
  switch (q.bits) {
    case 2:
      return DType::kMlx2;
    case 3:
      return DType::kMlx3;
    case 4:
      return DType::kMlx4;
    case 5:
      return DType::kMlx5;
    case 6:
      return DType::kMlx6;
    default:
      return DType::kMlx8;
  }
}

class Builder {
 public:
  Builder(const std::vector<StoredTensor>& stored, const HfConfig& config, std::string_view name,
          ModelContent& content)
      : stored_(stored), config_(config), name_(name), content_(content) {
    for (const StoredTensor& tensor : stored) by_name_.emplace(tensor.name, &tensor);
  }

  void build() {
    // Companions first, so that the pass over the rest skips them.
    for (const StoredTensor& tensor : stored_) claim_companions(tensor);
    for (const StoredTensor& tensor : stored_) {
      if (companions_.contains(tensor.name) || is_draft(tensor.name)) continue;
      std::string canonical = canonical_tensor_name(*config_.family, tensor.name);
      const bool extra_head = config_.tied_head && canonical.starts_with("output.");
      if (canonical.empty() || extra_head) continue;
      const bool renamed = canonical != tensor.name;
      add(tensor, std::move(canonical));
      if (renamed)
        content_.stored_names.emplace(content_.tensors.back().name, content_.keep(std::string(tensor.name)));
    }
  }

 private:
  [[noreturn]] void fail(const StoredTensor& tensor, std::string_view what) const {
    fail_json(name_, fmt::format("tensor {} ({} {}) {}", quote(tensor.name), tensor.type->name,
                                 shape_text(tensor.shape), what));
  }
  const StoredTensor* find(const std::string& name) const {
    const auto entry = by_name_.find(name);
    return entry == by_name_.end() ? nullptr : entry->second;
  }
  // "X" of "X.weight", or nothing.
  static std::optional<std::string> module_of(std::string_view name) {
    constexpr std::string_view kWeight = ".weight";
    if (!name.ends_with(kWeight)) return std::nullopt;
    return std::string(name.substr(0, name.size() - kWeight.size()));
  }

  bool is_draft(std::string_view name) const {
    constexpr std::string_view kLayers = "model.layers.";
    if (config_.draft_layers == 0 || !name.starts_with(kLayers)) return false;
    name.remove_prefix(kLayers.size());
    std::int64_t layer = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    return error == std::errc{} && layer >= config_.layers && layer < config_.layers + config_.draft_layers;
  }

  // "X" of "X_blocks".
  static std::optional<std::string> blocks_of(std::string_view name) {
    constexpr std::string_view kBlocks = "_blocks";
    if (!name.ends_with(kBlocks)) return std::nullopt;
    return std::string(name.substr(0, name.size() - kBlocks.size()));
  }

  void claim_companions(const StoredTensor& tensor) {
    if (const auto base = blocks_of(tensor.name)) companions_.insert(*base + "_scales");
    const auto module = module_of(tensor.name);
    if (!module) return;
    if (tensor.type->name == "U32") {
      for (const char* suffix : {".scales", ".biases"}) companions_.insert(*module + suffix);
    } else if (tensor.type->dtype == DType::kF8E4M3) {
      companions_.insert(*module + ".weight_scale_inv");
    }
  }

  void add(const StoredTensor& tensor, std::string canonical) {
    TensorInfo info{};
    info.shape = tensor.shape;
    info.bytes = tensor.bytes;
    if (tensor.type->name == "U32") {
      quantized(tensor, info);
    } else if (blocks_of(tensor.name)) {
      fp4_blocks(tensor, info);
    } else if (!tensor.type->dtype) {
      fail(tensor, "is of no type that weights have");
    } else {
      info.type = *tensor.type->dtype;
      if (info.type == DType::kF8E4M3) block_scaled(tensor, info);
    }
    for (const std::int64_t extent : info.shape) {
      if (extent == 0) fail(tensor, "is empty");
    }
    if (info.shape.empty()) info.shape.push_back(1);
    info.name = content_.keep(std::move(canonical));
    if (!content_.tensor_index.emplace(info.name, content_.tensors.size()).second) {
      fail(tensor, fmt::format("and another one are both {}", quote(info.name)));
    }
    content_.tensors.push_back(std::move(info));
  }

  const MlxQuantization& quantization_of(const StoredTensor& tensor, const std::string& module) const {
    const auto entry = config_.overrides.find(module);
    const std::optional<MlxQuantization>& chosen =
        entry == config_.overrides.end() ? config_.quantization : entry->second;
    if (!chosen) fail(tensor, "holds quantized codes, but config.json has no quantization for it");
    return *chosen;
  }

  void quantized(const StoredTensor& tensor, TensorInfo& info) {
    const auto module = module_of(tensor.name);
    const StoredTensor* scales = module ? find(*module + ".scales") : nullptr;
    if (scales == nullptr) fail(tensor, "has no scales beside it");
    const StoredTensor* biases = find(*module + ".biases");
    const MlxQuantization& q = quantization_of(tensor, *module);
    const bool fp4 = q.mode == QuantMode::kMxfp4;
    if (fp4 ? biases != nullptr : biases == nullptr)
      fail(tensor, fp4 ? "has biases, which mxfp4 has not" : "has no biases beside it");

    if (tensor.shape.size() < 2) fail(tensor, "is no matrix");
    const std::int64_t columns = tensor.shape.back() * 32 / q.bits;
    std::vector<std::int64_t> groups = tensor.shape;
    groups.back() = columns / q.group;
    // Contradicted where config.json is of another file than the weights.
    if (tensor.shape.back() * 32 % q.bits != 0 || columns % q.group != 0 || columns == 0 ||
        scales->shape != groups) {
      fail(tensor, fmt::format("with scales {} is not {} bits in groups of {}, as config.json says",
                               shape_text(scales->shape), q.bits, q.group));
    }
    const bool scale_fits = fp4 ? scales->type->name == "U8"
                                : scales->type->dtype == DType::kF32 || scales->type->dtype == DType::kF16 ||
                                      scales->type->dtype == DType::kBF16;
    if (!scale_fits) fail(*scales, "is of no type that scales have");
    if (biases != nullptr && (biases->type != scales->type || biases->shape != scales->shape))
      fail(*biases,
           fmt::format("does not match its scales, {} {}", scales->type->name, shape_text(scales->shape)));
    info.type = code_type(q);
    info.shape.back() = columns;
    info.scales = {.type = fp4 ? DType::kE8M0 : *scales->type->dtype,
                   .group = q.group,
                   .group_rows = 1,
                   .scales = scales->bytes,
                   .biases = biases != nullptr ? biases->bytes : std::span<const std::byte>{}};
  }

  // MXFP4 as OpenAI stores it: [..., blocks, 16] bytes of codes, and a scale a block.
  void fp4_blocks(const StoredTensor& tensor, TensorInfo& info) {
    const StoredTensor* scales = find(*blocks_of(tensor.name) + "_scales");
    if (scales == nullptr) fail(tensor, "has no scales beside it");
    if (tensor.type->name != "U8" || tensor.shape.size() < 3 || tensor.shape.back() != 16)
      fail(tensor, "is not in blocks of 16 bytes");
    info.shape.pop_back();
    if (scales->type->name != "U8" || scales->shape != info.shape)
      fail(*scales, fmt::format("should be U8 {}", shape_text(info.shape)));
    if (info.shape.back() > (std::int64_t{1} << 40)) fail(tensor, "is too large");
    info.shape.back() *= 32;
    info.type = DType::kMlxFp4;
    info.scales = {.type = DType::kE8M0, .group = 32, .group_rows = 1, .scales = scales->bytes, .biases = {}};
  }

  void block_scaled(const StoredTensor& tensor, TensorInfo& info) {
    const auto module = module_of(tensor.name);
    const StoredTensor* scales = module ? find(*module + ".weight_scale_inv") : nullptr;
    if (scales == nullptr || !config_.fp8) fail(tensor, "is FP8 without block scales (weight_scale_inv)");
    if (tensor.shape.size() != 2) fail(tensor, "is no matrix");
    const std::int64_t rows = (tensor.shape[0] + config_.fp8_rows - 1) / config_.fp8_rows;
    const std::int64_t columns = (tensor.shape[1] + config_.fp8_columns - 1) / config_.fp8_columns;
    if (scales->shape != std::vector<std::int64_t>{rows, columns})
      fail(*scales, fmt::format("should be [{}, {}]: one a block of {} × {}", rows, columns, config_.fp8_rows,
                                config_.fp8_columns));
    if (scales->type->dtype != DType::kF32 && scales->type->dtype != DType::kBF16)
      fail(*scales, "is of no type that scales have");
    info.scales = {.type = *scales->type->dtype,
                   .group = static_cast<int>(config_.fp8_columns),
                   .group_rows = static_cast<int>(config_.fp8_rows),
                   .scales = scales->bytes,
                   .biases = {}};
  }

  const std::vector<StoredTensor>& stored_;
  const HfConfig& config_;
  std::string_view name_;
  ModelContent& content_;
  std::map<std::string_view, const StoredTensor*> by_name_;
  std::set<std::string, std::less<>> companions_;
};

}  // namespace

void add_hf_tensors(const std::vector<StoredTensor>& stored, const HfConfig& config, std::string_view name,
                    ModelContent& content) {
  Builder(stored, config, name, content).build();
}

}  // namespace mlxs
