#include "backend/cuda/pack_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "backend/code_bits.h"
#include "backend/cpu/dequantize.h"
#include "backend/cpu/float_bits.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/regroup.h"
#include "backend/cpu/split_block.h"

namespace mlxs::cuda {
namespace {

constexpr int kMostShift = 6;  // larger groups' scales are repeated: the kernels know groups of 16, 32 and 64

bool fits_mlx(const RawWeight& raw) {
  const int group = raw.scales.group;
  return mlx_code_bits(raw.type) != 0 && raw.type != DType::kMlxFp4 && raw.scales.group_rows == 1 &&
         group >= 32 && group <= 1024 && std::has_single_bit(static_cast<unsigned>(group)) &&
         raw.columns % group == 0;
}

// FP8 whose blocks are whole units of 64 columns, or whole rows; others become bf16.
bool fits_fp8(const RawWeight& raw) {
  return raw.type == DType::kF8E4M3 && (raw.scales.group % 64 == 0 || raw.scales.group >= raw.columns);
}

// MXFP4's powers of two may leave f16's range (with the zero point's factor of 128); such tensors become
// bf16, which holds them exactly.
bool scales_fit(const RawWeight& raw) {
  const auto fits = [](std::byte exponent) {
    const int power = std::to_integer<int>(exponent) - 128;  // the levels are doubled
    return power >= -24 && power <= 8;
  };
  if (raw.type == DType::kMlxFp4) return std::ranges::all_of(raw.scales.scales, fits);
  if (raw.type != DType::kMXFP4) return true;
  const auto block = static_cast<std::size_t>(dtype_info(raw.type).block_bytes);
  for (std::size_t at = 0; at < raw.bytes.size(); at += block) {
    if (!fits(raw.bytes[at])) return false;
  }
  return true;
}

float scale_at(const RawWeight& raw, std::span<const std::byte> values, std::size_t index) {
  if (values.empty()) return 0.0f;
  if (raw.scales.type == DType::kF32) {
    float value;
    std::memcpy(&value, values.data() + 4 * index, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, values.data() + 2 * index, 2);
  return raw.scales.type == DType::kF16 ? cpu::f16_to_float(bits) : cpu::bf16_to_float(bits);
}

// A unit that holds a NaN has a NaN for a scale: as numbers, its bits would be 480.
void pack_fp8(const RawWeight& raw, std::int64_t row, std::byte* codes, std::byte* scales) {
  const std::byte* from = raw.bytes.data() + row * raw.columns;
  std::memcpy(codes, from, static_cast<std::size_t>(raw.columns));
  const GroupScales& s = raw.scales;
  const std::int64_t groups = (raw.columns + s.group - 1) / s.group;
  for (std::int64_t first = 0; first < raw.columns; first += 64) {
    const auto unit = std::span(from, static_cast<std::size_t>(raw.columns))
                          .subspan(static_cast<std::size_t>(first),
                                   static_cast<std::size_t>(std::min<std::int64_t>(64, raw.columns - first)));
    float scale =
        scale_at(raw, s.scales, static_cast<std::size_t>(row / s.group_rows * groups + first / s.group));
    if (std::ranges::any_of(unit, [](std::byte code) { return (code & std::byte{0x7f}) == std::byte{0x7f}; }))
      scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(scales + first / 16, &scale, 4);
  }
}

void put_scale(std::byte* scales, std::size_t group, float scale, float bias) {
  const std::uint16_t pair[2] = {cpu::float_to_f16(scale), cpu::float_to_f16(bias)};
  std::memcpy(scales + 4 * group, pair, 4);
}

void put_code(std::byte* codes, const Packing& packing, std::int64_t column, unsigned code) {
  if (packing.codes == Codes::k8) {
    codes[column] = static_cast<std::byte>(code);
  } else {
    codes[column / 2] |= static_cast<std::byte>(code << (column % 2 * 4));
  }
}

void pack_mlx(const RawWeight& raw, const Packing& packing, std::int64_t row, std::byte* codes,
              std::byte* scales) {
  const auto bits = static_cast<std::size_t>(mlx_code_bits(raw.type));
  const auto columns = static_cast<std::size_t>(raw.columns);
  const std::size_t stream_bytes = row_bytes(raw.type, raw.columns);
  const std::byte* stream = raw.bytes.data() + static_cast<std::size_t>(row) * stream_bytes;
  if (bits == 4 || bits == 8) {
    std::memcpy(codes, stream, stream_bytes);  // the same order
  } else {
    for (std::size_t i = 0; i < columns; ++i) {
      const std::size_t bit = i * bits, byte = bit / 8;
      unsigned window = std::to_integer<unsigned>(stream[byte]);
      if (byte + 1 < stream_bytes) window |= std::to_integer<unsigned>(stream[byte + 1]) << 8;
      put_code(codes, packing, static_cast<std::int64_t>(i), (window >> (bit % 8)) & ((1u << bits) - 1));
    }
  }
  const std::size_t groups = columns / static_cast<std::size_t>(raw.scales.group);
  const std::size_t copies = static_cast<std::size_t>(raw.scales.group) >> packing.group_shift;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t at = static_cast<std::size_t>(row) * groups + g;
    const float scale = scale_at(raw, raw.scales.scales, at), bias = scale_at(raw, raw.scales.biases, at);
    for (std::size_t i = 0; i < copies; ++i) put_scale(scales, g * copies + i, scale, bias);
  }
}

void pack_blocks(DType type, const std::byte* bytes, const Packing& packing, std::int64_t columns,
                 std::byte* codes, std::byte* scales) {
  const cpu::Split split = cpu::splitter(type);
  const cpu::Packing kind = *cpu::packing_of(type);
  const cpu::PackedFormat& format = cpu::packed_format(kind);
  const bool table = format.codes == cpu::Codes::kTable;
  const int groups = cpu::kBlock / format.group;
  cpu::SplitBlock block{};
  for (std::int64_t b = 0; b < columns / cpu::kBlock; ++b) {
    split(reinterpret_cast<const std::uint8_t*>(bytes), static_cast<int>(b), block);
    for (int i = 0; i < cpu::kBlock; ++i) {
      const unsigned code = table ? cpu::code_table(kind)[block.codes[i]] : block.codes[i];
      put_code(codes, packing, b * cpu::kBlock + i, code);
    }
    for (int g = 0; g < groups; ++g) {
      const float scale =
          format.bf16_scale ? cpu::bf16_to_float(block.scales[g]) : cpu::f16_to_float(block.scales[g]);
      const float least = format.has_min ? cpu::f16_to_float(block.mins[g]) : 0.0f;
      put_scale(scales, static_cast<std::size_t>(b * groups + g), scale,
                least - scale * static_cast<float>(format.zero));
    }
  }
}

void pack_dense(DType type, const std::byte* bytes, std::int64_t columns, std::byte* codes) {
  if (type == DType::kBF16) {
    std::memcpy(codes, bytes, static_cast<std::size_t>(columns) * 2);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(columns));
  cpu::dequantize_row(type, bytes, columns, values.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t bits = cpu::float_to_bf16(values[i]);
    std::memcpy(codes + 2 * i, &bits, 2);
  }
}

}  // namespace

Packing packing_of(const RawWeight& raw) {
  if (fits_mlx(raw)) {
    return {mlx_code_bits(raw.type) <= 4 ? Codes::k4 : Codes::k8,
            std::min(kMostShift, std::countr_zero(static_cast<unsigned>(raw.scales.group)))};
  }
  if (fits_fp8(raw)) return {Codes::kF8, kMostShift};
  const std::optional<DType> plain = cpu::regrouped_type(raw.type);
  const std::optional<cpu::Packing> kind = plain ? cpu::packing_of(*plain) : std::nullopt;
  if (!kind || !scales_fit(raw) || raw.columns % cpu::kBlock != 0) return {};
  const cpu::PackedFormat& format = cpu::packed_format(*kind);
  if (format.dense()) return {};
  return {format.codes == cpu::Codes::k4 ? Codes::k4 : Codes::k8, format.group == 16 ? 4 : 5};
}

FileRows file_rows(const RawWeight& raw) {
  const auto floats = [](DType type) {
    return type == DType::kF32 ? FileFloat::kF32 : type == DType::kF16 ? FileFloat::kF16 : FileFloat::kBF16;
  };
  FileRows rows{.row_bytes = row_bytes(raw.type, raw.columns)};
  if (fits_mlx(raw)) {
    if (raw.type != DType::kMlx4 && raw.type != DType::kMlx8) return {};
    rows.type = raw.type == DType::kMlx4 ? FileType::kMlx4 : FileType::kMlx8;
    rows.floats = floats(raw.scales.type);
    rows.group = raw.scales.group;
    return rows;
  }
  if (raw.scales) return {};
  switch (raw.type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      rows.type = FileType::kFloats;
      rows.floats = floats(raw.type);
      return rows;
    case DType::kMXFP4:
      if (scales_fit(raw)) rows.type = FileType::kMxFp4;
      return rows;
    case DType::kQ4_0:
      rows.type = FileType::kQ4_0;
      return rows;
    case DType::kQ4_1:
      rows.type = FileType::kQ4_1;
      return rows;
    case DType::kQ5_0:
      rows.type = FileType::kQ5_0;
      return rows;
    case DType::kQ5_1:
      rows.type = FileType::kQ5_1;
      return rows;
    case DType::kQ8_0:
      rows.type = FileType::kQ8_0;
      return rows;
    case DType::kQ2_K:
      rows.type = FileType::kQ2_K;
      return rows;
    case DType::kQ3_K:
      rows.type = FileType::kQ3_K;
      return rows;
    case DType::kQ4_K:
      rows.type = FileType::kQ4_K;
      return rows;
    case DType::kQ5_K:
      rows.type = FileType::kQ5_K;
      return rows;
    case DType::kQ6_K:
      rows.type = FileType::kQ6_K;
      return rows;
    case DType::kIQ4_NL:
      rows.type = FileType::kIq4Nl;
      return rows;
    default:
      return {};
  }
}

std::size_t code_row_bytes(const Packing& packing, std::int64_t columns) {
  const auto padded = static_cast<std::size_t>(padded_columns(columns));
  return packing.codes == Codes::k4 ? padded / 2 : packing.codes == Codes::kBF16 ? padded * 2 : padded;
}

std::size_t scale_row_bytes(const Packing& packing, std::int64_t columns) {
  if (packing.codes == Codes::kBF16) return 0;
  const auto padded = static_cast<std::size_t>(padded_columns(columns));
  const std::size_t group = std::size_t{1} << packing.group_shift;
  return (padded + group - 1) / group * 4;
}

std::size_t row_bytes_of(const Packing& packing, std::int64_t columns) {
  return code_row_bytes(packing, columns) + scale_row_bytes(packing, columns);
}

namespace {

// Codes and scales one after the other, as the functions above write them.
void pack_plain(const RawWeight& raw, const Packing& packing, std::int64_t row, std::byte* codes,
                std::byte* scales) {
  if (fits_mlx(raw)) return pack_mlx(raw, packing, row, codes, scales);
  if (packing.codes == Codes::kF8) return pack_fp8(raw, row, codes, scales);
  const DType type = *cpu::regrouped_type(raw.type);
  const std::byte* bytes =
      raw.bytes.data() + static_cast<std::size_t>(row) * row_bytes(raw.type, raw.columns);
  std::vector<std::byte> blocks;
  if (raw.scales) {
    blocks.resize(row_bytes(type, raw.columns));
    cpu::regroup_row(raw, row, blocks.data());
    bytes = blocks.data();
  }
  if (packing.codes == Codes::kBF16) return pack_dense(type, bytes, raw.columns, codes);
  pack_blocks(type, bytes, packing, raw.columns, codes, scales);
}

// Eight bf16 values as four pairs, (0,4) (1,5) (2,6) (3,7), two for each of two products.
void pair_up(const std::byte* from, std::byte* to) {
  for (std::size_t i = 0; i < 8; ++i)
    std::memcpy(to + i % 4 / 2 * 512 + i % 2 * 8 + i / 4 * 2, from + i * 2, 2);
}

}  // namespace

void pack_row(const RawWeight& raw, const Packing& packing, std::int64_t row, int place, std::byte* codes,
              std::byte* scales) {
  thread_local std::vector<std::byte> plain;
  const std::size_t code_bytes = code_row_bytes(packing, raw.columns),
                    scale_bytes = scale_row_bytes(packing, raw.columns);
  plain.assign(code_bytes + scale_bytes, std::byte{0});
  pack_plain(raw, packing, row, plain.data(), plain.data() + code_bytes);
  const auto units = static_cast<std::size_t>(padded_columns(raw.columns) / 64);
  const auto g = static_cast<std::size_t>(place % 8), h = static_cast<std::size_t>(place / 8);
  const std::byte* from = plain.data();
  for (std::size_t unit = 0; unit < units; ++unit) {
    for (std::size_t eight = 0; eight < 8; ++eight) {
      const std::size_t lane = g * 4 + eight % 4, piece = eight / 4;
      if (packing.codes == Codes::k4) {
        std::memcpy(codes + unit * 512 + lane * 16 + h * 8 + piece * 4, from, 4);
        from += 4;
      } else if (packing.codes != Codes::kBF16) {
        std::memcpy(codes + unit * 1024 + h * 512 + lane * 16 + piece * 8, from, 8);
        from += 8;
      } else {
        pair_up(from, codes + unit * 2048 + piece * 1024 + lane * 16 + h * 4);
        from += 16;
      }
    }
  }
  const auto groups = static_cast<std::size_t>(64 >> packing.group_shift);
  for (std::size_t i = 0; i < scale_bytes / 4; ++i) {
    const std::size_t q = i % groups, within = groups == 1   ? g * 2 + h
                                               : groups == 2 ? g * 4 + q * 2 + h
                                                             : g * 8 + q % 2 * 4 + q / 2 * 2 + h;
    std::memcpy(scales + (i / groups * 16 * groups + within) * 4, from + i * 4, 4);
  }
}

}  // namespace mlxs::cuda
