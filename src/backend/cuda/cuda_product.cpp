// Which kernels multiply rows with a weight, and what happens to the sums.
#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/pack_rows.h"

namespace mlxs::cuda {
namespace {

// Weights that cuBLASLt multiplies at a time: in bf16 no more than the L2 cache has room for, or somewhat
// more.
constexpr std::int64_t kSlice = std::int64_t{32} << 20;
constexpr int kTile = static_cast<int>(kTileOutputs);

}  // namespace

int CudaBackend::product(const CudaWeight& weight, const ThinInput& input, int rows, const Finish& f,
                         const NormBehind& behind) {
  const Operand& x = input.operand;
  if (x.wide && by_blas(weight, rows)) {
    blas_product(weight, x, rows, f);
    return 0;
  }
  const int outputs = static_cast<int>(weight.rows());
  const auto each = [&](auto&& run) {
    for (std::size_t s = 0; s < weight.segments().size(); ++s)
      run(weight.segments()[s], weight.first_rows()[s]);
  };
  const bool one_pass = !f.gated || gates_at_once(weight);
  int parts = 0;
  const auto thin_to = [&](const Finish& to) {
    each([&](const Rows& w, int first) {
      const int splits = input.raw != nullptr ? 0 : thin_splits(w, rows, to.gated, multiprocessors_);
      const std::size_t tiles = static_cast<std::size_t>(w.rows) / (2 * kTile);
      const Scratch partial(
          memory_, splits == 0 ? 1 : static_cast<std::size_t>(splits) * tiles * kSplitFloats * sizeof(float));
      parts =
          thin(stream_.get(), w, input, rows, first, to, {}, {}, multiprocessors_,
               splits == 0 ? ThinSplits{}
                           : ThinSplits{splits, partial.floats(), reinterpret_cast<int*>(counters_.data())},
               behind);
    });
    return parts;
  };
  const bool few = !x.wide && narrow(rows);
  if (few && one_pass) return thin_to(f);
  const Rows& first = weight.segments().front();
  const WideSplits shares = x.wide ? wide_splits(first, rows, multiprocessors_) : WideSplits{};
  const auto wide_to = [&](const Finish& to) {
    const std::size_t apart =
        shares.joined ? 0 : static_cast<std::size_t>(rows) * static_cast<std::size_t>(outputs);
    each([&](const Rows& w, int column) {
      parts = cuda::wide(stream_.get(), w, x, input.means, rows, column, shares.splits, apart, to, {});
    });
    return parts;
  };
  if (x.wide && shares.joined && one_pass) return wide_to(f);

  int splits = 1;  // sums that finish() adds
  if (x.wide) {
    if (!shares.joined) splits = shares.splits;
  } else if (!few) {
    splits = matmul_splits(outputs, static_cast<int>(weight.columns()), rows, multiprocessors_);
  }
  const Scratch sums(memory_, static_cast<std::size_t>(splits) * static_cast<std::size_t>(rows) *
                                  static_cast<std::size_t>(outputs) * sizeof(float));
  const Finish plain{.y = sums.floats(), .columns = outputs};
  if (few) {
    thin_to(plain);
  } else if (x.wide) {
    wide_to(plain);
  } else {
    each([&](const Rows& w, int column) {
      matmul(stream_.get(), w, x, rows, column, splits, sums.floats(), outputs);
    });
  }
  finish(stream_.get(), sums.floats(), splits, rows, f);
  return 0;
}

// Slice by slice of the outputs: weights to bf16, the product, and what follows it.
void CudaBackend::blas_product(const CudaWeight& weight, const Operand& x, int rows, const Finish& f,
                               void* brief) {
  const bool plain = brief != nullptr || (!f.gated && f.bias == nullptr && f.act == Act::kNone &&
                                          f.soft_cap == 0 && f.operand.data == nullptr);
  const auto all = static_cast<int>(weight.rows());
  const int halves = f.gated ? 2 : 1, outputs = all / halves;
  const int most = std::max<int>(128, static_cast<int>(kSlice / halves / x.stride) / 128 * 128);
  const int slices = (outputs + most - 1) / most;
  const int each = slices == 1 ? outputs : ((outputs + slices - 1) / slices + 127) / 128 * 128;
  const bool gates = gates_rows(f, 0, outputs);  // their sums in bf16 then, as half as much to write and read
  const auto longest = static_cast<std::size_t>(each) * static_cast<std::size_t>(halves),
             stride = static_cast<std::size_t>(x.stride);
  // Segments begin and end within tiles.
  const Scratch matrix(memory_, (longest + 2 * kTile) * stride * 2);
  const Scratch sums(memory_,
                     plain ? 1 : longest * static_cast<std::size_t>(rows) * (gates ? 2 : sizeof(float)));
  struct To {
    void* data;
    int columns;
    bool bf16;
    void* at(int column) const {
      return static_cast<std::byte*>(data) + static_cast<std::ptrdiff_t>(column) * (bf16 ? 2 : 4);
    }
  };
  // Outputs `first` … of the weight, whichever segments have them, to columns of `to` from `column` on.
  const auto multiply = [&](int first, int last, const To& to, int column, const float* added) {
    for (std::size_t s = 0; s < weight.segments().size(); ++s) {
      const Rows& w = weight.segments()[s];
      const int start = weight.first_rows()[s], from = std::max(first, start),
                end = std::min(last, start + w.rows);
      if (from >= end) continue;
      const int first_tile = (from - start) / kTile, tiles = (end - start + kTile - 1) / kTile - first_tile;
      const int skipped = from - start - first_tile * kTile;  // of the first tile
      unpack_tiles(stream_.get(), w, first_tile, tiles, matrix.data());
      blas_->multiply(stream_.get(), {.w = static_cast<const std::byte*>(matrix.data()) +
                                           static_cast<std::size_t>(skipped) * stride * 2,
                                      .x = x.data,
                                      .rows = rows,
                                      .outputs = end - from,
                                      .columns = x.stride,
                                      .added = added != nullptr ? added + column + from - first : nullptr,
                                      .y = to.at(column + from - first),
                                      .y_columns = to.columns,
                                      .y_bf16 = to.bf16});
    }
  };
  for (int first = 0; first < outputs; first += each) {
    const int here = std::min(each, outputs - first);
    if (plain) {
      multiply(first, first + here, {brief != nullptr ? brief : f.y, f.columns, brief != nullptr}, first,
               brief != nullptr ? nullptr : f.residual);
      continue;
    }
    const To to{sums.data(), halves * here, gates};
    if (slices == 1) {
      multiply(0, all, to, 0, nullptr);
    } else {
      for (int half = 0; half < halves; ++half)
        multiply(half * outputs + first, half * outputs + first + here, to, half * here, nullptr);
    }
    if (gates) {
      gate_rows(stream_.get(), sums.data(), rows, f, first, here);
    } else {
      finish(stream_.get(), sums.floats(), 1, rows, f, first, here);
    }
  }
}

}  // namespace mlxs::cuda
