#include "backend/cuda/cuda_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/regroup.h"
#include "backend/cuda/pack_rows.h"
#include "base/file_ranges.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr std::size_t kMaxSegments = 8;  // what embed() takes

// Bytes of a piece: `to` bytes behind its begin.
struct Source {
  std::span<const std::byte> from;
  std::size_t to = 0;
  void read(std::byte* piece) const {
    if (from.empty()) return;
    if (const FilePlace place = file_of(from)) return read_file(place, {piece + to, from.size()});
    std::memcpy(piece + to, from.data(), from.size());
  }
};

// Whether its bytes are a file's, which are there as long as the model is loaded.
bool lasts(const RawWeight& part) {
  return std::ranges::all_of(std::array{part.bytes, part.scales.scales, part.scales.biases},
                             [](const auto& bytes) { return bytes.empty() || file_of(bytes); });
}

// The tile of a segment of `rows` rows that begins with row `row`.
void pack_tile(std::span<const RawWeight> parts, const Packing& packing, std::int64_t row, std::int64_t rows,
               std::span<std::byte> codes, std::span<std::byte> scales) {
  const std::int64_t end = std::min<std::int64_t>(row + kTileOutputs, rows);
  if (end - row < kTileOutputs) {
    std::ranges::fill(codes, std::byte{0});
    std::ranges::fill(scales, std::byte{0});
  }
  std::size_t part = 0;
  std::int64_t first = 0;  // of the part
  for (int place = 0; row < end; ++row, ++place) {
    while (row >= first + parts[part].rows) first += parts[part++].rows;
    pack_row(parts[part], packing, row - first, place, codes.data(), scales.data());
  }
}

void check_part(const RawWeight& part, std::int64_t columns) {
  const DTypeInfo& info = dtype_info(part.type);
  const auto fail = [&](std::string_view what) {
    throw Error(ErrorCode::kModelLoad, fmt::format("tensor '{}' ({} [{}, {}]) {}", part.name, info.name,
                                                   part.rows, part.columns, what));
  };
  const std::optional<DType> plain = cpu::regrouped_type(part.type);
  if (!plain || !cpu::can_dequantize(*plain)) fail("has a type that the CUDA backend has no kernel for");
  if (part.rows < 1 || part.columns < 1) fail("is empty");
  if (part.columns != columns) fail(fmt::format("is stacked with a tensor of {} columns", columns));
  if (part.columns % info.block_elements != 0)
    fail(fmt::format("has rows that are no whole blocks of {}", info.block_elements));
  const std::size_t bytes = row_bytes(part.type, part.columns) * static_cast<std::size_t>(part.rows);
  if (part.bytes.size() != bytes) fail(fmt::format("has {} bytes instead of {}", part.bytes.size(), bytes));
  cpu::check_scales(part);
}

}  // namespace

CudaWeight::CudaWeight(WeightStream& stream, DeviceArena& arena, std::span<const RawWeight> parts,
                       WeightUse use) {
  if (parts.empty()) throw Error(ErrorCode::kInternal, "prepare() was called without a tensor");
  columns_ = parts.front().columns;
  for (const RawWeight& part : parts) {
    check_part(part, columns_);
    rows_ += part.rows;
  }
  const std::string what = fmt::format("tensor '{}'", parts.front().name);
  std::vector<RawWeight> sources(parts.begin(), parts.end());
  for (RawWeight& part : sources) part.name = {};  // of the caller's, who may be gone
  parts = sources;
  batch_ = stream.batch();
  try {
    if (use == WeightUse::kVector) {
      packed_bytes_ = static_cast<std::size_t>(rows_ * columns_) * sizeof(float);
      storage_ = arena.cut(packed_bytes_, what);
      send_vector(stream, parts);
    } else {
      send_matrix(stream, arena, parts, what);
    }
    if (!std::ranges::all_of(parts, lasts)) batch_->wait_filled();
  } catch (...) {
    batch_->settle();
    throw;
  }
}

CudaWeight::~CudaWeight() { batch_->settle(); }

void CudaWeight::send_matrix(WeightStream& stream, DeviceArena& arena, std::span<const RawWeight> parts,
                             const std::string& what) {
  std::vector<Packing> packings;
  std::vector<std::size_t> first_parts;  // of each segment
  std::int64_t row = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const Packing packing = packing_of(parts[p]);
    if (packings.empty() || packings.back() != packing) {
      packings.push_back(packing);
      first_parts.push_back(p);
      segments_.push_back({.columns = static_cast<int>(columns_),
                           .padded = static_cast<int>(padded_columns(columns_)),
                           .group_shift = packing.group_shift,
                           .type = packing.codes});
      first_rows_.push_back(static_cast<int>(row));
    }
    segments_.back().rows += static_cast<int>(parts[p].rows);
    row += parts[p].rows;
  }
  if (segments_.size() > kMaxSegments) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{} is stacked of {} types; the CUDA backend takes {}",
                                                   what, segments_.size(), kMaxSegments));
  }
  const auto aligned = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
  std::vector<std::size_t> offsets;
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    const auto rows = static_cast<std::size_t>(padded_rows(segments_[s].rows));
    offsets.push_back(packed_bytes_);
    packed_bytes_ += aligned(rows * code_row_bytes(packings[s], columns_));
    offsets.push_back(packed_bytes_);
    packed_bytes_ += aligned(rows * scale_row_bytes(packings[s], columns_));
  }
  storage_ = arena.cut(packed_bytes_, what);
  first_parts.push_back(parts.size());
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    segments_[s].codes = storage_.data + offsets[2 * s];
    segments_[s].scales = storage_.data + offsets[2 * s + 1];
    send_segment(stream, parts.subspan(first_parts[s], first_parts[s + 1] - first_parts[s]), segments_[s]);
  }
}

void CudaWeight::send_rows(WeightStream& stream, const RawWeight& part, std::int64_t first,
                           const Rows& segment) {
  FileRows rows = file_rows(part);
  const auto all = static_cast<std::size_t>(part.rows);
  const std::array<std::span<const std::byte>, 3> arrays{part.bytes, part.scales.scales, part.scales.biases};
  std::size_t row_bytes = 0;
  for (const auto& array : arrays) row_bytes += array.size() / all;
  const std::size_t each = std::max<std::size_t>(1, (stream.piece_bytes() - 1024) / row_bytes);
  for (std::size_t begin = 0; begin < all; begin += each) {
    const std::size_t count = std::min(each, all - begin);
    std::array<Source, 3> sources;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      const std::size_t row = arrays[i].size() / all;
      sources[i] = {arrays[i].subspan(begin * row, count * row), bytes};
      bytes += (count * row + 255) / 256 * 256;
    }
    stream.add(*batch_, {.bytes = bytes,
                         .fill =
                             [sources](std::byte* pinned) {
                               for (const Source& source : sources) source.read(pinned);
                             },
                         .send =
                             [=](const WeightStream::Queue& queue, const std::byte* pinned,
                                 std::byte* staging) mutable {
                               queue.copy(staging, pinned, bytes);
                               rows.codes = staging;
                               rows.scales = staging + sources[1].to;
                               rows.biases = sources[2].from.empty() ? nullptr : staging + sources[2].to;
                               pack(queue.stream, rows, static_cast<int>(first) + static_cast<int>(begin),
                                    static_cast<int>(count), segment);
                             }});
  }
}

void CudaWeight::send_segment(WeightStream& stream, std::span<const RawWeight> parts, const Rows& segment) {
  if (!std::ranges::all_of(parts,
                           [](const RawWeight& part) { return file_rows(part).type != FileType::kNone; })) {
    return send_packed(stream, parts, segment);
  }
  if (segment.rows % kTileOutputs != 0) {  // the last tile's other rows are zeros
    const Packing packing = packing_of(parts.front());
    const auto clear = [&](const void* packed, std::size_t row_bytes) {
      const std::size_t tile = kTileOutputs * row_bytes,
                        at = static_cast<std::size_t>(segment.rows / kTileOutputs) * tile;
      check(cudaMemset(static_cast<std::byte*>(const_cast<void*>(packed)) + at, 0, tile), "loading weights");
    };
    clear(segment.codes, code_row_bytes(packing, columns_));
    clear(segment.scales, scale_row_bytes(packing, columns_));
    check(cudaStreamSynchronize(nullptr), "loading weights");  // before any stream's pieces
  }
  std::int64_t first = 0;
  for (const RawWeight& part : parts) {
    send_rows(stream, part, first, segment);
    first += part.rows;
  }
}

void CudaWeight::send_packed(WeightStream& stream, std::span<const RawWeight> parts, const Rows& segment) {
  const Packing packing = packing_of(parts.front());
  const std::size_t code_bytes = kTileOutputs * code_row_bytes(packing, columns_),
                    scale_bytes = kTileOutputs * scale_row_bytes(packing, columns_);
  const std::int64_t tiles = padded_rows(segment.rows) / kTileOutputs;
  const auto each =
      static_cast<std::int64_t>(std::max<std::size_t>(1, stream.piece_bytes() / (code_bytes + scale_bytes)));
  const auto shared = std::make_shared<std::vector<RawWeight>>(parts.begin(), parts.end());
  for (std::int64_t begin = 0; begin < tiles; begin += each) {
    const std::int64_t count = std::min(each, tiles - begin);
    const std::size_t all_codes = static_cast<std::size_t>(count) * code_bytes,
                      all_scales = static_cast<std::size_t>(count) * scale_bytes;
    const auto fill = [=, rows = segment.rows](std::byte* pinned) {
      for (std::int64_t i = 0; i < count; ++i) {
        pack_tile(*shared, packing, (begin + i) * kTileOutputs, rows,
                  {pinned + static_cast<std::size_t>(i) * code_bytes, code_bytes},
                  {pinned + all_codes + static_cast<std::size_t>(i) * scale_bytes, scale_bytes});
      }
    };
    const auto tile = static_cast<std::size_t>(begin);
    auto* const codes = static_cast<std::byte*>(const_cast<void*>(segment.codes)) + tile * code_bytes;
    auto* const scales = static_cast<std::byte*>(const_cast<void*>(segment.scales)) + tile * scale_bytes;
    stream.add(*batch_, {.bytes = all_codes + all_scales,
                         .fill = fill,
                         .send = [=](const WeightStream::Queue& queue, const std::byte* pinned, std::byte*) {
                           queue.copy(codes, pinned, all_codes);
                           if (all_scales > 0) queue.copy(scales, pinned + all_codes, all_scales);
                         }});
  }
}

void CudaWeight::send_vector(WeightStream& stream, std::span<const RawWeight> parts) {
  const auto fill = [shared = std::vector<RawWeight>(parts.begin(), parts.end())](std::byte* pinned) {
    auto* out = reinterpret_cast<float*>(pinned);
    for (const RawWeight& part : shared) {
      const DType type = *cpu::regrouped_type(part.type);
      std::vector<std::byte> blocks(row_bytes(type, part.columns));
      for (std::int64_t row = 0; row < part.rows; ++row, out += part.columns) {
        cpu::regroup_row(part, row, blocks.data());
        cpu::dequantize_row(type, blocks.data(), part.columns, out);
      }
    }
  };
  stream.add(*batch_, {.bytes = packed_bytes_,
                       .fill = fill,
                       .send = [to = storage_](const WeightStream::Queue& queue, const std::byte* pinned,
                                               std::byte*) { queue.copy(to.data, pinned, to.bytes); }});
}

}  // namespace mlxs::cuda
