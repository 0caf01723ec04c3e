// Heads with weights of their own, as experts that each have all rows: one product for all of them.
#include <algorithm>
#include <span>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/expert_arrays.h"
#include "backend/cuda/op_specs.h"

namespace mlxs::cuda {
namespace {

constexpr int kThinHeadRows = 12;  // of a head, up to which thin() is faster

// Whether one table names them all.
bool alike(std::span<const WeightPtr> weights) {
  const Rows& first = cuda_weight(*weights.front()).segments().front();
  return std::ranges::all_of(weights, [&](const WeightPtr& weight) {
    const auto segments = cuda_weight(*weight).segments();
    const Rows& rows = segments.front();
    return segments.size() == 1 && rows.type == first.type && rows.group_shift == first.group_shift &&
           rows.rows == first.rows && rows.columns == first.columns;
  });
}

// [heads] on the GPU, kept by the first one's weight.
const ExpertWeight* table_of(std::span<const WeightPtr> weights) {
  DeviceBuffer& table = cuda_weight(*weights.front()).expert_table();
  if (table.data() == nullptr) {
    std::vector<ExpertWeight> entries;
    for (const WeightPtr& weight : weights) {
      const Rows& rows = cuda_weight(*weight).segments().front();
      entries.push_back({rows.codes, rows.scales, nullptr});
    }
    table = uploaded(std::as_bytes(std::span(entries)), "the heads of a layer");
  }
  return reinterpret_cast<const ExpertWeight*>(table.data());
}

}  // namespace

Tensor CudaBackend::linear_heads(Tensor x, std::int32_t first, std::int32_t step,
                                 std::span<const WeightPtr> weights) {
  if (!alike(weights)) return Backend::linear_heads(x, first, step, weights);
  if (graphs_.replaying()) return graphs_.next();
  const CudaWeight& weight = cuda_weight(*weights.front());
  const auto heads = static_cast<int>(weights.size()), columns = static_cast<int>(weight.columns()),
             out = static_cast<int>(weight.rows()), places = x.rows * heads;
  // The heads' inputs as rows of their own.
  const bool lie_so = first == 0 && step == columns && x.columns == heads * columns;
  const Scratch packed(
      memory_,
      lie_so ? 1 : static_cast<std::size_t>(places) * static_cast<std::size_t>(columns) * sizeof(float));
  if (!lie_so) {
    copy_columns(stream_.get(), floats(x) + first, x.columns, step, packed.floats(), heads * columns, columns,
                 x.rows, heads, columns);
  }
  const Operand operand = make_operand(places, columns, hopper_ && x.rows > kThinHeadRows);
  normalize_operand(stream_.get(), lie_so ? floats(x) : packed.floats(), places, columns, nullptr, operand);

  const Scratch routing(memory_,
                        (static_cast<std::size_t>(places) + ExpertArrays::ints(heads)) * sizeof(int));
  auto* const rows_of = static_cast<int*>(routing.data());
  const ExpertArrays order(rows_of + places, heads);
  const ExpertRows rows{.first = order.first,
                        .active = order.active,
                        .turns = order.turns,
                        .alive = order.alive,
                        .rows = rows_of,
                        .leading = order.leading,
                        .count = heads,
                        .places = places};
  route_heads(stream_.get(), heads, x.rows, order.first, order.turns, order.alive, order.active,
              order.leading, rows_of);
  const Tensor y = allocate(x.rows, static_cast<std::int64_t>(heads) * out);
  if (x.rows == 1) {
    expert_product(weight, table_of(weights), rows, operand, {.y = floats_of(y), .columns = out});
  } else {  // by head, then by row
    const Scratch sums(memory_,
                       static_cast<std::size_t>(places) * static_cast<std::size_t>(out) * sizeof(float));
    expert_product(weight, table_of(weights), rows, operand, {.y = sums.floats(), .columns = out});
    copy_columns(stream_.get(), sums.floats(), out, x.rows * out, floats_of(y), heads * out, out, x.rows,
                 heads, out);
  }
  memory_.release(operand.data);
  return graphs_.note(y);
}

}  // namespace mlxs::cuda
