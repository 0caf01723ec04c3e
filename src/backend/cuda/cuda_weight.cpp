#include "backend/cuda/cuda_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/dequantize.h"
#include "backend/cpu/regroup.h"
#include "backend/cuda/pack_rows.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr std::size_t kPiece = std::size_t{32} << 20;  // bytes packed before they are sent
constexpr std::size_t kMaxSegments = 8;                // what embed() takes

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

Uploader::Uploader(cudaStream_t stream) : stream_(stream) {
  for (Slot& slot : slots_) check(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming), "an event");
}

Uploader::~Uploader() {
  cudaStreamSynchronize(stream_);
  for (Slot& slot : slots_) cudaEventDestroy(slot.done);
}

std::byte* Uploader::next(std::size_t bytes) {
  current_ = 1 - current_;
  Slot& slot = slots_[static_cast<std::size_t>(current_)];
  check(cudaEventSynchronize(slot.done), "loading weights");
  slot.data = slot.buffer.reserve(bytes);
  return slot.data;
}

void Uploader::send(void* to, std::size_t offset, std::size_t bytes) {
  const Slot& slot = slots_[static_cast<std::size_t>(current_)];
  check(cudaMemcpyAsync(to, slot.data + offset, bytes, cudaMemcpyHostToDevice, stream_), "loading weights");
}

std::byte* Uploader::staging(std::size_t bytes) {
  if (bytes > staging_.bytes()) {
    check(cudaStreamSynchronize(stream_), "loading weights");
    staging_ = {};
    staging_ = DeviceBuffer(std::bit_ceil(bytes), "loading weights");
  }
  return staging_.data();
}

void Uploader::trim() {
  if (staging_.data() == nullptr) return;
  check(cudaStreamSynchronize(stream_), "loading weights");
  staging_ = {};
}

void Uploader::sent() {
  check(cudaEventRecord(slots_[static_cast<std::size_t>(current_)].done, stream_), "loading weights");
}

CudaWeight::CudaWeight(ThreadPool& pool, Uploader& uploader, std::span<const RawWeight> parts,
                       WeightUse use) {
  if (parts.empty()) throw Error(ErrorCode::kInternal, "prepare() was called without a tensor");
  columns_ = parts.front().columns;
  for (const RawWeight& part : parts) {
    check_part(part, columns_);
    rows_ += part.rows;
  }
  if (use == WeightUse::kVector) {
    pack_vector(parts, uploader);
    return;
  }

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
    throw Error(ErrorCode::kModelLoad,
                fmt::format("tensor '{}' is stacked of {} types; the CUDA backend takes {}",
                            parts.front().name, segments_.size(), kMaxSegments));
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
  storage_ = DeviceBuffer(packed_bytes_, fmt::format("tensor '{}'", parts.front().name));
  first_parts.push_back(parts.size());
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    segments_[s].codes = storage_.data() + offsets[2 * s];
    segments_[s].scales = storage_.data() + offsets[2 * s + 1];
    pack_segment(pool, uploader, parts.subspan(first_parts[s], first_parts[s + 1] - first_parts[s]),
                 segments_[s]);
  }
}

void CudaWeight::send_rows(ThreadPool& pool, Uploader& uploader, const RawWeight& part, std::int64_t first,
                           const Rows& segment) const {
  constexpr std::size_t kCopy = std::size_t{256} << 10;  // a thread's
  FileRows rows = file_rows(part);
  const auto all = static_cast<std::size_t>(part.rows);
  struct Array {
    std::span<const std::byte> bytes;
    std::size_t row, offset;
  };
  std::array<Array, 3> arrays{Array{part.bytes, rows.row_bytes, 0}, Array{part.scales.scales, 0, 0},
                              Array{part.scales.biases, 0, 0}};
  std::size_t row_bytes = 0;
  for (Array& array : arrays) {
    array.row = array.bytes.size() / all;
    row_bytes += array.row;
  }
  const std::size_t each = std::max<std::size_t>(1, kPiece / row_bytes);
  for (std::size_t begin = 0; begin < all; begin += each) {
    const std::size_t count = std::min(each, all - begin);
    std::size_t bytes = 0;
    for (Array& array : arrays) {
      array.offset = bytes;
      bytes += (count * array.row + 255) / 256 * 256;
    }
    std::byte* const piece = uploader.next(bytes);
    std::byte* const staging = uploader.staging(bytes);
    for (const Array& array : arrays) {
      const std::size_t size = count * array.row;
      const std::byte* from = array.bytes.data() + begin * array.row;
      pool.parallel_for(static_cast<std::int64_t>((size + kCopy - 1) / kCopy), 1,
                        [&](std::int64_t chunk, std::int64_t end, int) {
                          const auto at = static_cast<std::size_t>(chunk) * kCopy,
                                     to = std::min(size, static_cast<std::size_t>(end) * kCopy);
                          if (at < to) std::memcpy(piece + array.offset + at, from + at, to - at);
                        });
    }
    uploader.send(staging, 0, bytes);
    uploader.sent();
    rows.codes = staging;
    rows.scales = staging + arrays[1].offset;
    rows.biases = part.scales.biases.empty() ? nullptr : staging + arrays[2].offset;
    pack(uploader.stream(), rows, static_cast<int>(first) + static_cast<int>(begin), static_cast<int>(count),
         segment);
  }
}

void CudaWeight::pack_segment(ThreadPool& pool, Uploader& uploader, std::span<const RawWeight> parts,
                              const Rows& segment) const {
  const Packing packing = packing_of(parts.front());
  if (std::ranges::all_of(parts,
                          [](const RawWeight& part) { return file_rows(part).type != FileType::kNone; })) {
    if (segment.rows % kTileOutputs != 0) {  // the last tile's other rows are zeros
      const auto clear = [&](const void* packed, std::size_t row_bytes) {
        const std::size_t tile = kTileOutputs * row_bytes,
                          at = static_cast<std::size_t>(segment.rows / kTileOutputs) * tile;
        check(cudaMemsetAsync(static_cast<std::byte*>(const_cast<void*>(packed)) + at, 0, tile,
                              uploader.stream()),
              "loading weights");
      };
      clear(segment.codes, code_row_bytes(packing, columns_));
      clear(segment.scales, scale_row_bytes(packing, columns_));
    }
    std::int64_t first = 0;
    for (const RawWeight& part : parts) {
      send_rows(pool, uploader, part, first, segment);
      first += part.rows;
    }
    return;
  }
  const std::size_t code_bytes = kTileOutputs * code_row_bytes(packing, columns_),
                    scale_bytes = kTileOutputs * scale_row_bytes(packing, columns_);
  const std::int64_t tiles = padded_rows(segment.rows) / kTileOutputs;
  const auto each = static_cast<std::int64_t>(std::max<std::size_t>(1, kPiece / (code_bytes + scale_bytes)));
  for (std::int64_t begin = 0; begin < tiles; begin += each) {
    const std::int64_t count = std::min(each, tiles - begin);
    const std::size_t all_codes = static_cast<std::size_t>(count) * code_bytes,
                      all_scales = static_cast<std::size_t>(count) * scale_bytes;
    std::byte* piece = uploader.next(all_codes + all_scales);
    pool.parallel_for(count, 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = from; i < to; ++i) {
        std::byte* codes = piece + static_cast<std::size_t>(i) * code_bytes;
        std::byte* scales = piece + all_codes + static_cast<std::size_t>(i) * scale_bytes;
        std::int64_t row = (begin + i) * kTileOutputs;
        const std::int64_t end = std::min<std::int64_t>(row + kTileOutputs, segment.rows);
        if (end - row < kTileOutputs) {
          std::memset(codes, 0, code_bytes);
          std::memset(scales, 0, scale_bytes);
        }
        std::size_t part = 0;
        std::int64_t first = 0;  // of the part
        for (int place = 0; row < end; ++row, ++place) {
          while (row >= first + parts[part].rows) first += parts[part++].rows;
          pack_row(parts[part], packing, row - first, place, codes, scales);
        }
      }
    });
    const auto tile = static_cast<std::size_t>(begin);
    uploader.send(static_cast<std::byte*>(const_cast<void*>(segment.codes)) + tile * code_bytes, 0,
                  all_codes);
    if (all_scales > 0) {
      uploader.send(static_cast<std::byte*>(const_cast<void*>(segment.scales)) + tile * scale_bytes,
                    all_codes, all_scales);
    }
    uploader.sent();
  }
}

void CudaWeight::pack_vector(std::span<const RawWeight> parts, Uploader& uploader) {
  packed_bytes_ = static_cast<std::size_t>(rows_ * columns_) * sizeof(float);
  storage_ = DeviceBuffer(packed_bytes_, fmt::format("tensor '{}'", parts.front().name));
  auto* out = reinterpret_cast<float*>(uploader.next(packed_bytes_));
  for (const RawWeight& part : parts) {
    const DType type = *cpu::regrouped_type(part.type);
    std::vector<std::byte> blocks(row_bytes(type, columns_));
    for (std::int64_t row = 0; row < part.rows; ++row, out += columns_) {
      cpu::regroup_row(part, row, blocks.data());
      cpu::dequantize_row(type, blocks.data(), columns_, out);
    }
  }
  uploader.send(storage_.data(), 0, packed_bytes_);
  uploader.sent();
}

}  // namespace mlxs::cuda
