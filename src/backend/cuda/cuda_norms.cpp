// Norms that need no kernel: who makes a tensor leaves its columns times the next norm's gain for the product
// that reads it, and sums of its squares, with which that product divides its sums (kernels.h, RootMeans).
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/op_specs.h"

namespace mlxs::cuda {
namespace {

// Rows whose norm is left to its reader. Of more, a kernel between the two costs less, as measured on an
// H200: the reader's weights are on their way while it runs, and each of its blocks would read the squares
// again. Mixtures, whose routers have few blocks, gain up to more rows.
constexpr int kMostDivided = 8, kMostOfMixtures = 32;
constexpr std::int64_t kSmallReader = 1024;  // outputs

bool divides(const NextSpec& next) {
  return next.norm != nullptr && next.weight != nullptr && next.norm->kind == NormSpec::Kind::kRms &&
         next.norm->bias == nullptr;
}

}  // namespace

bool CudaBackend::ends_in_product(const CudaWeight& weight, int rows) const {
  if (!narrow(rows) || weight.segments().size() != 1) return false;
  return !wide(rows, weight.columns(), weight.rows()) ||
         wide_splits(weight.segments().front(), rows, multiprocessors_).joined;
}

void CudaBackend::leave_normed(Finish& f, Tensor y, const NextSpec& next, bool of_mixture) {
  if (!divides(next)) return;
  const bool more = of_mixture || next.weight->rows() <= kSmallReader;
  if (y.rows > (more ? kMostOfMixtures : kMostDivided)) return;
  const int stride = (y.columns + 63) / 64 * 4;  // of sixteen outputs a part, at most
  const Operand operand = make_operand(y.rows, y.columns, wide(y.rows, y.columns, next.weight->rows()));
  float* squares = memory_.floats(static_cast<std::size_t>(y.rows) * static_cast<std::size_t>(stride));
  f.operand = operand;
  f.gain = floats_of(next.norm->gain);
  f.gain_offset = norm_of(*next.norm).offset;
  f.squares = {squares, stride};
  normed_[y.handle] = {
      .gain = next.norm->gain,
      .operand = operand,
      .means = {.squares = squares, .stride = stride, .columns = y.columns, .epsilon = next.norm->epsilon},
      .squares = squares};
}

void CudaBackend::note_parts(Tensor y, int parts) {
  if (const auto made = normed_.find(y.handle); made != normed_.end()) made->second.means.count = parts;
}

const CudaBackend::Normed* CudaBackend::normed(Tensor x, const NormSpec* norm, bool wide) const {
  const auto made = normed_.find(x.handle);
  if (norm == nullptr || made == normed_.end()) return nullptr;
  const Normed& own = made->second;
  return own.gain == norm->gain && own.operand.wide == wide ? &own : nullptr;
}

void CudaBackend::forget_normed(Tensor tensor) {
  const auto made = normed_.find(tensor.handle);
  if (made == normed_.end()) return;
  memory_.release(made->second.operand.data);
  memory_.release(made->second.squares);
  normed_.erase(made);
}

Tensor CudaBackend::add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec& next) {
  if (graphs_.replaying()) return graphs_.next();
  const float *from = floats(x), *added = floats(residual);
  overwrite(residual);
  constexpr int kMostRows = 256;  // more are norms' own kernels'
  if (divides(next) && x.rows <= kMostRows &&
      adds_to_operand(x.columns, norm_of(spec), norm_of(*next.norm))) {
    const Operand operand = make_operand(x.rows, x.columns, wide(x.rows, x.columns, next.weight->rows()));
    add_to_operand(stream_.get(), from, x.rows, x.columns, norm_of(spec), added, floats_of(residual),
                   norm_of(*next.norm), operand);
    normed_[residual.handle] = {.gain = next.norm->gain, .operand = operand};
    return graphs_.note(residual);
  }
  normalize(stream_.get(), from, x.rows, x.columns, norm_of(spec), added, floats_of(residual));
  return graphs_.note(residual);
}

Tensor CudaBackend::linear_add_norm(Tensor x, const Weight& weight, const Weight* bias, const NormSpec& norm,
                                    Tensor residual, const NextSpec& next) {
  const CudaWeight& own = cuda_weight(weight);
  const Norm as = norm_of(norm);
  if (own.segments().size() != 1 || !norms_behind(own.segments().front(), x.rows, as, multiprocessors_))
    return Backend::linear_add_norm(x, weight, bias, norm, residual, next);
  if (graphs_.replaying()) return graphs_.next();
  const Input input = input_for(own, x, nullptr, false);
  const float* added = floats(residual);
  overwrite(residual);
  const auto rows = static_cast<std::size_t>(residual.rows);
  const int columns = residual.columns, stride = (columns + 63) / 64 * 4;
  const Scratch out(memory_, rows * static_cast<std::size_t>(columns) * sizeof(float)),
      squares(memory_, rows * static_cast<std::size_t>(stride) * sizeof(float));
  NormBehind behind{.norm = as,
                    .finish = {.residual = added, .y = floats_of(residual), .columns = columns},
                    .counter = reinterpret_cast<int*>(counters_.data()) + kAttentionCounters + 1};
  leave_normed(behind.finish, residual, next, false);
  note_parts(residual, product(own, input.thin, x.rows,
                               {.bias = floats_of(bias),
                                .y = out.floats(),
                                .squares = {squares.floats(), stride},
                                .columns = columns},
                               behind));
  memory_.release(input.owned);
  return graphs_.note(residual);
}

}  // namespace mlxs::cuda
