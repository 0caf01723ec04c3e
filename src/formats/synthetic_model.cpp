#include "formats/synthetic_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "formats/json_file.h"

namespace mlxs {
namespace {

constexpr std::size_t kSpread = std::size_t{1} << 20;  // bytes within which tensors start
constexpr float kDeviation = 0.02f;                    // of weights, as models are initialized with

constexpr float kEightSpread = 113.0f;  // deviation of equally likely FP8 numbers (e4m3)

std::uint16_t to_bf16(float value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
}

DType mlx_type(int bits) {
  constexpr DType kTypes[] = {DType::kMlx2, DType::kMlx3, DType::kMlx4, DType::kMlx5, DType::kMlx6};
  return bits == 8 ? DType::kMlx8 : kTypes[bits - 2];
}

class Random {
 public:
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  float between(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
  }

 private:
  std::uint64_t state_ = 1;
};

}  // namespace

SyntheticTensors::SyntheticTensors(const std::filesystem::path& config_json, ModelContent& content)
    : path_(config_json.string()) {
  const auto config = read_json_object(config_json);
  if (!config) fail_json(path_, "is not there");
  settings_ = read_hf_config(*config, path_, content);
  if (!settings_.overrides.empty() ||
      (settings_.quantization && settings_.quantization->mode != QuantMode::kAffine)) {
    fail_json(path_,
              "asks for a quantization that random weights are not made in; MLX's affine one is, for "
              "all matrices, or FP8, or none");
  }
  const std::string prefix = std::string(settings_.family->architecture) + ".";
  const auto offset = content.metadata.find(prefix + "norm_unit_offset");
  unit_offset_ = offset != content.metadata.end() && std::get_if<bool>(&offset->second) != nullptr &&
                 std::get<bool>(offset->second);
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  const auto vocabulary = json_int(*config, "vocab_size", path_, 1, kMost),
             hidden = json_int(*config, "hidden_size", path_, 1, kMost);
  if (!vocabulary || !hidden) fail_json(path_, "has no 'vocab_size' or 'hidden_size'");
  const std::int64_t shape[] = {*vocabulary, *hidden};
  add("token_embd.weight", shape, content);
  if (!settings_.tied_head) add("output.weight", shape, content);
}

void SyntheticTensors::add(std::string_view name, std::span<const std::int64_t> shape,
                           ModelContent& content) {
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  const std::int64_t columns = shape.back();
  const std::size_t start = std::hash<std::string_view>{}(name);
  TensorInfo tensor{.name = content.keep(std::string(name)),
                    .type = DType::kF32,
                    .shape = {shape.begin(), shape.end()},
                    .bytes = {}};
  const bool router = name.ends_with("ffn_gate_inp.weight");  // publishers leave it whole, or in 8 bits
  const auto count = [&](DType type) { return static_cast<std::size_t>(rows) * row_bytes(type, columns); };
  if (name.ends_with(".bias")) {
    tensor.bytes = bytes(Filling::kBias, count(DType::kF32), start);
  } else if (shape.size() == 1) {
    tensor.bytes = bytes(Filling::kGain, count(DType::kF32), start);
  } else if (settings_.fp8 && !router && !name.starts_with("token_embd") && !name.starts_with("output.")) {
    tensor.type = DType::kF8E4M3;
    tensor.bytes = bytes(Filling::kEights, count(tensor.type), start);
    const std::int64_t stacked = shape.size() > 2 ? rows / shape[shape.size() - 2] : 1, own = rows / stacked;
    const std::int64_t scales = stacked * ((own + settings_.fp8_rows - 1) / settings_.fp8_rows) *
                                ((columns + settings_.fp8_columns - 1) / settings_.fp8_columns);
    if (stacked > 1 && own % settings_.fp8_rows != 0)
      fail_json(path_,
                fmt::format("blocks of {} rows do not divide the experts of {}", settings_.fp8_rows, name));
    tensor.scales = {.type = DType::kF32,
                     .group = static_cast<int>(settings_.fp8_columns),
                     .group_rows = static_cast<int>(settings_.fp8_rows),
                     .scales = bytes(Filling::kEightScale, static_cast<std::size_t>(scales) * 4, start)};
  } else if (!settings_.quantization || router) {
    tensor.type = DType::kBF16;
    tensor.bytes = bytes(Filling::kNormal, count(DType::kBF16), start);
  } else {
    const MlxQuantization& q = *settings_.quantization;
    if (columns % q.group != 0)
      fail_json(path_,
                fmt::format("groups of {} do not divide the {} columns of {}", q.group, columns, name));
    tensor.type = mlx_type(q.bits);
    tensor.bytes = bytes(Filling::kCodes, count(tensor.type), start);
    const std::size_t scales = static_cast<std::size_t>(rows * columns / q.group) * 2;
    tensor.scales = {.type = DType::kBF16,
                     .group = q.group,
                     .scales = bytes(Filling::kScale, scales, start),
                     .biases = bytes(Filling::kZero, scales, start)};
  }
  content.tensor_index.emplace(tensor.name, content.tensors.size());
  content.tensors.push_back(std::move(tensor));
}

std::span<const std::byte> SyntheticTensors::bytes(Filling filling, std::size_t count, std::size_t start) {
  start = start % kSpread / 64 * 64;
  const Bytes* pool = nullptr;
  for (const auto& [kind, held] : pools_) {
    if (kind == filling && held->size() >= start + count) pool = held.get();
  }
  if (pool == nullptr) {
    auto& made = pools_.emplace_back(filling, std::make_unique<Bytes>(std::bit_ceil(kSpread + count)));
    fill(filling, *made.second);
    pool = made.second.get();
  }
  return std::span(*pool).subspan(start, count);
}

void SyntheticTensors::fill(Filling filling, Bytes& bytes) const {
  Random random;
  const auto each = [&](auto&& value) {
    for (std::size_t at = 0; at < bytes.size(); at += sizeof(value())) {
      const auto one = value();
      std::memcpy(bytes.data() + at, &one, sizeof(one));
    }
  };
  const int bits = settings_.quantization ? settings_.quantization->bits : 4;
  const auto levels = static_cast<float>(1 << bits);
  // The same for kScale and kZero: both read the same random numbers.
  const auto scale = [&] {
    const float whole = kDeviation * std::sqrt(12.0f) / levels;  // equally likely codes spread like that
    return std::bit_cast<float>(static_cast<std::uint32_t>(to_bf16(random.between(0.5f, 1.5f) * whole))
                                << 16);
  };
  const float wide = kDeviation * std::sqrt(3.0f);  // equally likely values of that deviation
  switch (filling) {
    case Filling::kCodes:
      return each([&] { return random.next(); });
    case Filling::kEights:  // any but those that are no numbers
      return each([&] { return static_cast<std::uint8_t>(random.next() % 127 | (random.next() & 1) << 7); });
    case Filling::kEightScale:
      return each([&] { return random.between(0.5f, 1.5f) * kDeviation / kEightSpread; });
    case Filling::kNormal:
      return each([&] { return to_bf16(random.between(-wide, wide)); });
    case Filling::kGain:
      return each([&] { return random.between(0.5f, 1.5f) - (unit_offset_ ? 1.0f : 0.0f); });
    case Filling::kBias:
      return each([&] { return random.between(-0.1f, 0.1f); });
    case Filling::kScale:
      return each([&] { return to_bf16(scale()); });
    case Filling::kZero:
      return each([&] { return to_bf16(-0.5f * (levels - 1.0f) * scale()); });
  }
}

}  // namespace mlxs
