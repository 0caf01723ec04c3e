#include <fmt/format.h>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/regroup.h"
#include "backend/ops.h"
#include "mlxs/error.h"

namespace mlxs {

std::size_t Backend::packed_size(const RawWeight& raw, WeightUse /*use*/) const {
  return raw.bytes.size() + raw.scales.scales.size() + raw.scales.biases.size();
}

RawWeight slice_rows(const RawWeight& weight, std::int64_t first, std::int64_t count) {
  if (first < 0 || count < 1 || count > weight.rows - first ||
      (weight.scales && first % weight.scales.group_rows != 0)) {
    throw Error(ErrorCode::kInternal, fmt::format("tensor '{}': rows {} … {} of {} cannot be taken alone",
                                                  weight.name, first, first + count, weight.rows));
  }
  const std::size_t row = row_bytes(weight.type, weight.columns);
  RawWeight part = weight;
  part.rows = count;
  part.bytes =
      weight.bytes.subspan(static_cast<std::size_t>(first) * row, static_cast<std::size_t>(count) * row);
  if (const GroupScales& whole = weight.scales) {
    const auto groups = static_cast<std::size_t>((weight.columns + whole.group - 1) / whole.group);
    const std::size_t line = groups * row_bytes(whole.type, 1);
    const auto begin = static_cast<std::size_t>(first / whole.group_rows) * line;
    const auto size = static_cast<std::size_t>((count + whole.group_rows - 1) / whole.group_rows) * line;
    part.scales.scales = whole.scales.subspan(begin, size);
    if (!whole.biases.empty()) part.scales.biases = whole.biases.subspan(begin, size);
  }
  return part;
}

std::vector<float> values_of(const RawWeight& weight) {
  const auto type = cpu::regrouped_type(weight.type);
  if (!type || !cpu::can_dequantize(*type)) {
    throw Error(ErrorCode::kModelLoad, fmt::format("tensor '{}' ({}) holds no weights that can be read",
                                                   weight.name, dtype_info(weight.type).name));
  }
  cpu::check_scales(weight);
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.columns));
  std::vector<std::byte> blocks(row_bytes(*type, weight.columns));
  for (std::int64_t row = 0; row < weight.rows; ++row) {
    cpu::regroup_row(weight, row, blocks.data());
    cpu::dequantize_row(*type, blocks.data(), weight.columns, values.data() + row * weight.columns);
  }
  return values;
}

}  // namespace mlxs
