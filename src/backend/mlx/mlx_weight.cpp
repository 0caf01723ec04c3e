#include "backend/mlx/mlx_weight.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/code_bits.h"
#include "backend/cpu/dequantize.h"
#include "backend/cpu/float_bits.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/regroup.h"
#include "backend/cpu/split_block.h"
#include "mlxs/error.h"

namespace mlxs::mlx_backend {
namespace {

mx::Shape shape2(std::int64_t rows, std::int64_t columns) {
  return {static_cast<int>(rows), static_cast<int>(columns)};
}

// Bytes of the file in MLX's own memory: the mapping may go before the weight does, so they are copied, once.
// What was made may be evaluated after finish().
class Copies {
 public:
  explicit Copies(CopyQueue* queue) : queue_(queue) {}
  ~Copies() { finish(); }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  mx::array array(std::span<const std::byte> bytes, mx::Shape shape, mx::Dtype type) {
    mx::allocator::Data memory = mx::allocator::malloc(bytes.size());
    const std::span<std::byte> to(static_cast<std::byte*>(memory.buffer().raw_ptr()), bytes.size());
    mx::array made(std::move(memory), std::move(shape), type);
    if (queue_ == nullptr) {
      std::ranges::copy(bytes, to.begin());
      return made;
    }
    under_way_.push_back(made);  // keeps the memory, whatever happens meanwhile
    for (std::size_t at = 0; at < bytes.size(); at += queue_->piece_bytes())
      queue_->upload(bytes.subspan(at, std::min(queue_->piece_bytes(), bytes.size() - at)), to, at);
    return made;
  }
  void finish() {
    if (queue_ != nullptr) queue_->wait_all();
    under_way_.clear();
  }

 private:
  CopyQueue* queue_;
  std::vector<mx::array> under_way_;
};

// ---------------------------------------------------------------- MLX's own types

mx::Dtype scale_type(DType type) {
  return type == DType::kF16 ? mx::float16 : type == DType::kBF16 ? mx::bfloat16 : mx::float32;
}

WeightPart from_mlx(const RawWeight& w, mx::Dtype compute, Copies& copies) {
  const int bits = mlx_code_bits(w.type);
  const GroupScales& s = w.scales;
  WeightPart part{.codes = copies.array(w.bytes, shape2(w.rows, w.columns * bits / 32), mx::uint32)};
  part.group = s.group;
  part.bits = bits;
  const mx::Shape groups = shape2(w.rows, w.columns / s.group);
  if (w.type == DType::kMlxFp4) {
    part.mode = "mxfp4";
    part.scales = copies.array(s.scales, groups, mx::uint8);
    return part;
  }
  part.scales = mx::astype(copies.array(s.scales, groups, scale_type(s.type)), compute);
  part.biases = s.biases.empty() ? mx::zeros(groups, compute)
                                 : mx::astype(copies.array(s.biases, groups, scale_type(s.type)), compute);
  return part;
}

// ---------------------------------------------------------------- GGUF blocks that are affine in groups of
// 32

int affine_bits(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return 4;
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ5_K:
      return 5;
    case DType::kQ8_0:
      return 8;
    default:
      return 0;  // groups of 16, or levels from a table: not MLX's affine form
  }
}

// 32 codes as MLX stores them: a little-endian stream of `bits` each, which is `bits` whole words.
void write_codes(const std::uint8_t* codes, int bits, std::uint32_t* words) {
  std::uint64_t pending = 0;
  int filled = 0;
  for (int i = 0; i < 32; ++i) {
    pending |= std::uint64_t{codes[i]} << filled;
    filled += bits;
    if (filled >= 32) {
      *words++ = static_cast<std::uint32_t>(pending);
      pending >>= 32;
      filled -= 32;
    }
  }
}

WeightPart from_gguf(const RawWeight& w, mx::Dtype compute) {
  const int bits = affine_bits(w.type);
  const cpu::Split split = cpu::splitter(w.type);
  const cpu::PackedFormat& format = cpu::packed_format(*cpu::packing_of(w.type));
  const auto blocks = static_cast<std::size_t>(w.columns / 32), rows = static_cast<std::size_t>(w.rows);
  std::vector<std::uint32_t> codes(rows * blocks * static_cast<std::size_t>(bits));
  std::vector<float> scales(rows * blocks), biases(rows * blocks);
  const std::size_t row_size = row_bytes(w.type, w.columns);
  cpu::SplitBlock block{};
  for (std::size_t row = 0; row < rows; ++row) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(w.bytes.data() + row * row_size);
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::size_t at = row * blocks + b;
      split(bytes, static_cast<int>(b), block);
      write_codes(block.codes, bits, codes.data() + at * static_cast<std::size_t>(bits));
      scales[at] = cpu::f16_to_float(block.scales[0]);
      biases[at] =
          format.has_min ? cpu::f16_to_float(block.mins[0]) : -scales[at] * static_cast<float>(format.zero);
    }
  }
  const mx::Shape groups = shape2(w.rows, w.columns / 32);
  WeightPart part{.codes = mx::array(codes.begin(), shape2(w.rows, w.columns / 32 * bits), mx::uint32)};
  part.scales = mx::array(scales.begin(), groups, compute);
  part.biases = mx::array(biases.begin(), groups, compute);
  part.group = 32;
  part.bits = bits;
  return part;
}

// ---------------------------------------------------------------- everything else, as numbers

// Values as f32, row after row.
std::vector<float> values(const RawWeight& w) {
  const auto rows = static_cast<std::size_t>(w.rows), columns = static_cast<std::size_t>(w.columns);
  std::vector<float> out(rows * columns);
  const std::optional<DType> plain = cpu::regrouped_type(w.type);
  if (!plain || !cpu::can_dequantize(*plain)) {
    throw Error(ErrorCode::kModelLoad, fmt::format("tensor '{}': type {} is not supported by the mlx backend",
                                                   w.name, dtype_info(w.type).name));
  }
  std::vector<std::byte> row(row_bytes(*plain, w.columns));
  for (std::size_t r = 0; r < rows; ++r) {
    const std::byte* bytes = w.bytes.data() + r * row_bytes(w.type, w.columns);
    if (w.scales) {
      cpu::regroup_row(w, static_cast<std::int64_t>(r), row.data());
      bytes = row.data();
    }
    cpu::dequantize_row(*plain, bytes, w.columns, out.data() + r * columns);
  }
  return out;
}

WeightPart dense(const RawWeight& w, mx::Dtype type, Copies& copies) {
  if (w.type == DType::kF32 || w.type == DType::kF16 || w.type == DType::kBF16) {
    return {.codes = mx::astype(copies.array(w.bytes, shape2(w.rows, w.columns), scale_type(w.type)), type)};
  }
  const std::vector<float> numbers = values(w);
  return {.codes = mx::array(numbers.begin(), shape2(w.rows, w.columns), type)};
}

WeightPart make_part(const RawWeight& w, mx::Dtype compute, Copies& copies) {
  if (w.scales) cpu::check_scales(w);
  const bool whole_groups = w.scales ? w.columns % w.scales.group == 0 : w.columns % 32 == 0;
  if (mlx_code_bits(w.type) != 0 && whole_groups && (w.columns * mlx_code_bits(w.type)) % 32 == 0)
    return from_mlx(w, compute, copies);
  if (affine_bits(w.type) != 0 && whole_groups) return from_gguf(w, compute);
  return dense(w, compute, copies);
}

bool same_storage(const WeightPart& a, const WeightPart& b) {
  return a.quantized() == b.quantized() && a.group == b.group && a.bits == b.bits && a.mode == b.mode &&
         a.biases.has_value() == b.biases.has_value();
}

bool same_shape(const WeightPart& a, const WeightPart& b) {
  return same_storage(a, b) && a.codes.shape() == b.codes.shape() && a.codes.dtype() == b.codes.dtype();
}

void append(WeightPart& to, const WeightPart& more) {
  to.codes = mx::concatenate({to.codes, more.codes}, 0);
  if (to.scales) to.scales = mx::concatenate({*to.scales, *more.scales}, 0);
  if (to.biases) to.biases = mx::concatenate({*to.biases, *more.biases}, 0);
}

}  // namespace

MlxWeight::MlxWeight(std::span<const RawWeight> parts, WeightUse use, mx::Dtype compute, CopyQueue* queue)
    : compute_(compute) {
  Copies copies(queue);
  columns_ = parts.front().columns;
  if (use == WeightUse::kVector) {
    std::vector<float> numbers;
    for (const RawWeight& part : parts) {
      const std::vector<float> more = values(part);
      numbers.insert(numbers.end(), more.begin(), more.end());
    }
    rows_ = 1;
    columns_ = static_cast<std::int64_t>(numbers.size());
    parts_.push_back({.codes = mx::array(numbers.begin(), {static_cast<int>(numbers.size())}, mx::float32)});
  } else {
    for (const RawWeight& raw : parts) {
      WeightPart part = make_part(raw, compute, copies);
      rows_ += raw.rows;
      if (!parts_.empty() && same_storage(parts_.back(), part)) {
        append(parts_.back(), part);
      } else {
        parts_.push_back(std::move(part));
      }
    }
  }
  std::vector<mx::array> arrays;
  for (const WeightPart& part : parts_) {
    arrays.push_back(part.codes);
    if (part.scales) arrays.push_back(*part.scales);
    if (part.biases) arrays.push_back(*part.biases);
  }
  copies.finish();
  mx::eval(arrays);
  for (const mx::array& array : arrays) packed_bytes_ += array.nbytes();
}

mx::array MlxWeight::multiply(const mx::array& x) const {
  std::vector<mx::array> outputs;
  for (const WeightPart& part : parts_) {
    outputs.push_back(part.quantized() ? mx::quantized_matmul(x, part.codes, *part.scales, part.biases, true,
                                                              part.group, part.bits, part.mode)
                                       : mx::matmul(x, mx::transpose(part.codes)));
  }
  return outputs.size() == 1 ? outputs.front() : mx::concatenate(outputs, -1);
}

mx::array MlxWeight::rows_at(const mx::array& ids) const {
  const WeightPart& part = parts_.front();  // an embedding is one tensor
  const mx::array codes = mx::take(part.codes, ids, 0);
  if (!part.quantized()) return codes;
  std::optional<mx::array> biases;
  if (part.biases) biases = mx::take(*part.biases, ids, 0);
  return mx::astype(
      mx::dequantize(codes, mx::take(*part.scales, ids, 0), biases, part.group, part.bits, part.mode),
      compute_);
}

mx::array MlxWeight::dense() const {
  std::vector<mx::array> rows;
  for (const WeightPart& part : parts_) {
    rows.push_back(part.quantized() ? mx::astype(mx::dequantize(part.codes, *part.scales, part.biases,
                                                                part.group, part.bits, part.mode),
                                                 compute_)
                                    : part.codes);
  }
  return rows.size() == 1 ? rows.front() : mx::concatenate(rows, 0);
}

void MlxWeight::join(std::span<MlxWeight* const> experts) {
  MlxWeight& first = *experts.front();
  const bool same = std::ranges::all_of(experts, [&](const MlxWeight* expert) {
    return std::ranges::equal(expert->parts_, first.parts_, same_shape);
  });
  if (!same) {
    for (MlxWeight* expert : experts) expert->parts_ = {WeightPart{.codes = expert->dense()}};
  }
  std::vector<WeightPart> joined;
  std::vector<mx::array> arrays;
  for (std::size_t i = 0; i < first.parts_.size(); ++i) {
    const auto stacked = [&](auto array_of) {
      std::vector<mx::array> all;
      for (const MlxWeight* expert : experts) all.push_back(array_of(expert->parts_[i]));
      return arrays.emplace_back(mx::stack(all, 0));
    };
    WeightPart part = first.parts_[i];
    part.codes = stacked([](const WeightPart& p) { return p.codes; });
    if (part.scales) part.scales = stacked([](const WeightPart& p) { return *p.scales; });
    if (part.biases) part.biases = stacked([](const WeightPart& p) { return *p.biases; });
    joined.push_back(std::move(part));
  }
  mx::eval(arrays);
  for (MlxWeight* expert : experts) expert->parts_.clear();
  first.parts_ = std::move(joined);
}

mx::array MlxWeight::multiply_each(const mx::array& x, const mx::array& experts, bool sorted) const {
  const mx::array rows = mx::expand_dims(x, 1);
  std::vector<mx::array> outputs;
  for (const WeightPart& part : parts_) {
    outputs.push_back(
        part.quantized()
            ? mx::gather_qmm(rows, part.codes, *part.scales, part.biases, std::nullopt, experts, true,
                             part.group, part.bits, part.mode, std::nullopt, sorted)
            : mx::gather_mm(rows, mx::swapaxes(part.codes, 1, 2), std::nullopt, experts, sorted));
  }
  return mx::squeeze(outputs.size() == 1 ? outputs.front() : mx::concatenate(outputs, -1), 1);
}

mx::array MlxWeight::vector_each(const mx::array& experts) const {
  return mx::take(parts_.front().codes, experts, 0);
}

}  // namespace mlxs::mlx_backend
