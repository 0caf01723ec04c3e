#include "models/weight_loader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

// Rows 0, 2, 4 …, then 1, 3, 5 … of a line-by-line table.
std::vector<std::byte> evens_then_odds(std::span<const std::byte> table, std::size_t rows) {
  std::vector<std::byte> out(table.size());
  const std::size_t line = table.size() / rows;
  for (std::size_t row = 0; row < rows; ++row)
    std::memcpy(out.data() + (row % 2 * (rows / 2) + row / 2) * line, table.data() + row * line, line);
  return out;
}

}  // namespace

RawWeight WeightLoader::take(std::string_view name, std::initializer_list<std::int64_t> shape) {
  const TensorInfo* tensor = file_.take_tensor(name, std::span(shape.begin(), shape.size()));
  if (tensor == nullptr) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: tensor '{}' is missing", file_.path().string(), file_.stored_name(name)),
                "the file is incomplete or of another architecture: convert or download it again");
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: tensor '{}' has shape {}, the configuration asks for {}",
                            file_.path().string(), file_.stored_name(name), shape_text(tensor->shape),
                            shape_text(std::span(shape.begin(), shape.size()))),
                "metadata and tensors contradict each other: convert the model again");
  }
  used_.insert(tensor->name);
  const bool flat = shape.size() == 1;
  return RawWeight{tensor->name,       tensor->type,  flat ? 1 : *shape.begin(),
                   *(shape.end() - 1), tensor->bytes, tensor->scales};
}

WeightPtr WeightLoader::prepare(std::span<const RawWeight> parts, WeightUse use) {
  WeightPtr weight = backend_.prepare(parts, use, cache_);
  packed_bytes_ += weight->packed_bytes();
  return weight;
}

WeightPtr WeightLoader::matrix(std::string_view name, std::int64_t rows, std::int64_t columns) {
  const RawWeight raw = take(name, {rows, columns});
  return prepare({&raw, 1}, WeightUse::kMatrix);
}

WeightPtr WeightLoader::stacked(std::initializer_list<std::pair<std::string, std::int64_t>> parts,
                                std::int64_t columns) {
  std::vector<RawWeight> raw;
  raw.reserve(parts.size());
  for (const auto& [name, rows] : parts) raw.push_back(take(name, {rows, columns}));
  return prepare(raw, WeightUse::kMatrix);
}

WeightPtr WeightLoader::stacked_vector(std::initializer_list<std::pair<std::string, std::int64_t>> parts) {
  // As rows of one number, so that parts of different lengths stack.
  std::vector<RawWeight> raw;
  for (const auto& [name, size] : parts) {
    raw.push_back(take(name, {size}));
    raw.back().rows = std::exchange(raw.back().columns, 1);
  }
  return prepare(raw, WeightUse::kVector);
}

RawWeight WeightLoader::take_expert(const std::string& block, std::string_view part, std::int64_t index,
                                    std::int64_t count, std::int64_t rows, std::int64_t columns) {
  const std::string own = fmt::format("{}{}.{}.weight", block, part, index);
  if (has(own)) return take(own, {rows, columns});
  RawWeight all = take(fmt::format("{}{}_exps.weight", block, part), {count, rows, columns});
  all.rows = count * rows;
  RawWeight expert = slice_rows(all, index * rows, rows);
  expert.name = names_.emplace_back(own);
  return expert;
}

// From rows of gate and up in turn. They are copied at every load, also if the packed form is cached.
void WeightLoader::paired_gate_up(const std::string& block, std::int64_t index, std::int64_t count,
                                  std::int64_t inner, std::int64_t hidden, bool biased, Expert& expert) {
  const auto rows = static_cast<std::size_t>(2 * inner);
  RawWeight pairs = slice_rows(whole(block + "ffn_gate_up_pairs.weight", {count, 2 * inner, hidden}),
                               index * 2 * inner, 2 * inner);
  const std::vector<std::byte> codes = evens_then_odds(pairs.bytes, rows);
  const std::vector<std::byte> scales = evens_then_odds(pairs.scales.scales, rows);
  pairs.name = names_.emplace_back(fmt::format("{}ffn_gate_up.{}.weight", block, index));
  pairs.bytes = codes;
  pairs.scales.scales = scales;
  expert.gate_up = prepare({&pairs, 1}, WeightUse::kMatrix);
  if (!biased) return;
  RawWeight bias = slice_rows(take(block + "ffn_gate_up_pairs.bias", {count, 2 * inner}), index, 1);
  const std::vector<std::byte> ordered = evens_then_odds(bias.bytes, rows);
  bias.bytes = ordered;
  expert.gate_up_bias = prepare({&bias, 1}, WeightUse::kVector);
}

std::vector<Expert> WeightLoader::experts(const std::string& block, std::int64_t count, std::int64_t inner,
                                          std::int64_t hidden, bool biases) {
  std::vector<Expert> result(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    Expert& expert = result[static_cast<std::size_t>(i)];
    const RawWeight down = take_expert(block, "ffn_down", i, count, hidden, inner);
    expert.down = prepare({&down, 1}, WeightUse::kMatrix);
    const auto bias = [&](std::string_view part, std::int64_t size) {
      return slice_rows(take(fmt::format("{}{}_exps.bias", block, part), {count, size}), i, 1);
    };
    if (biases) {
      const RawWeight down_bias = bias("ffn_down", hidden);
      expert.down_bias = prepare({&down_bias, 1}, WeightUse::kVector);
    }
    if (has(block + "ffn_gate_up_pairs.weight")) {
      paired_gate_up(block, i, count, inner, hidden, biases, expert);
      continue;
    }
    const RawWeight gate_up[] = {take_expert(block, "ffn_gate", i, count, inner, hidden),
                                 take_expert(block, "ffn_up", i, count, inner, hidden)};
    expert.gate_up = prepare(gate_up, WeightUse::kMatrix);
    if (!biases) continue;
    const RawWeight both[] = {bias("ffn_gate", inner), bias("ffn_up", inner)};
    expert.gate_up_bias = prepare(both, WeightUse::kVector);
  }
  backend_.join_experts(result);
  return result;
}

RawWeight WeightLoader::whole(std::string_view name, std::initializer_list<std::int64_t> shape) {
  RawWeight all = take(name, shape);
  all.rows = 1;
  for (const std::int64_t extent : std::span(shape.begin(), shape.size() - 1)) all.rows *= extent;
  return all;
}

WeightPtr WeightLoader::slice(const RawWeight& whole, std::int64_t first, std::int64_t count) {
  if (whole.scales && first % whole.scales.group_rows != 0) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: tensor '{}' has blocks of {} rows, which row {} divides",
                            file_.path().string(), whole.name, whole.scales.group_rows, first),
                "take the model's plain or GGUF form");
  }
  RawWeight part = slice_rows(whole, first, count);
  part.name = names_.emplace_back(fmt::format("{}@{}", whole.name, first));
  return prepare({&part, 1}, WeightUse::kMatrix);
}

WeightPtr WeightLoader::transposed_slice(const RawWeight& whole, std::int64_t first, std::int64_t count) {
  const std::vector<float> rows = values_of(slice_rows(whole, first, count));
  std::vector<float> columns(rows.size());
  for (std::int64_t row = 0; row < count; ++row) {
    for (std::int64_t i = 0; i < whole.columns; ++i)
      columns[static_cast<std::size_t>(i * count + row)] =
          rows[static_cast<std::size_t>(row * whole.columns + i)];
  }
  const RawWeight part{.name = names_.emplace_back(fmt::format("{}@{}t", whole.name, first)),
                       .type = DType::kF32,
                       .rows = whole.columns,
                       .columns = count,
                       .bytes = std::as_bytes(std::span(columns))};
  return prepare({&part, 1}, WeightUse::kMatrix);
}

WeightPtr WeightLoader::vector(std::string_view name, std::int64_t size) {
  const RawWeight raw = take(name, {size});
  return prepare({&raw, 1}, WeightUse::kVector);
}

WeightPtr WeightLoader::embedding(std::string_view name, std::int64_t rows, std::int64_t columns) {
  const RawWeight raw = take(name, {rows, columns});
  return prepare({&raw, 1}, WeightUse::kEmbedding);
}

std::vector<float> WeightLoader::optional_floats(std::string_view name, std::int64_t size) {
  if (!has(name)) return {};
  const RawWeight raw = take(name, {size});
  if (raw.type != DType::kF32) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: tensor '{}' is {}, expected F32",
                                                   file_.path().string(), name, dtype_info(raw.type).name));
  }
  std::vector<float> values(static_cast<std::size_t>(size));
  std::memcpy(values.data(), raw.bytes.data(), raw.bytes.size());
  return values;
}

void WeightLoader::expect_all_used() const {
  std::vector<std::string> left;
  for (const TensorInfo& tensor : file_.tensors()) {
    if (!used_.contains(tensor.name)) left.push_back(file_.stored_name(tensor.name));
  }
  if (left.empty()) return;
  const std::size_t total = left.size();
  if (left.size() > 5) left.resize(5);
  throw Error(
      ErrorCode::kModelLoad,
      fmt::format("{}: {} tensor(s) have no place in the architecture '{}': {}{}", file_.path().string(),
                  total, file_.architecture(), fmt::join(left, ", "), total > left.size() ? ", …" : ""),
      "leaving them out would change the answers; this variant is not supported yet");
}

}  // namespace mlxs
