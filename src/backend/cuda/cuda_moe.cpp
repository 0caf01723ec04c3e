// A mixture of experts: the router's logits are read back and routed on the host, as the CPU does it, and
// each used expert multiplies its own rows side by side.
#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/op_specs.h"

namespace mlxs::cuda {
namespace {

std::span<const float> host_floats(const Weight* weight) {
  return weight != nullptr ? cuda_weight(*weight).host_floats() : std::span<const float>{};
}

}  // namespace

void CudaBackend::run_experts(const MoeSpec& spec, const float* x, int hidden, float* y) {
  for (std::size_t e = 0; e < spec.experts.size(); ++e) {
    const int first = routing_.first_row[e], rows = routing_.first_row[e + 1] - first;
    if (rows == 0) continue;
    const Expert& expert = spec.experts[e];
    const auto inner = static_cast<int>(expert.down->columns());
    const auto at = static_cast<std::size_t>(first) * static_cast<std::size_t>(hidden);
    const Scratch gated(memory_,
                        static_cast<std::size_t>(rows) * static_cast<std::size_t>(inner) * sizeof(float));
    product(cuda_weight(*expert.gate_up), x + at, rows,
            {.bias = floats_of(expert.gate_up_bias.get()),
             .y = gated.floats(),
             .columns = inner,
             .act = act_of(spec.activation),
             .gated = true});
    product(cuda_weight(*expert.down), gated.floats(), rows,
            {.bias = floats_of(expert.down_bias.get()), .y = y + at, .columns = hidden});
  }
}

Tensor CudaBackend::moe(Tensor x, const MoeSpec& spec) {
  const Tensor normed = spec.norm != nullptr ? norm(x, *spec.norm) : Tensor{};
  const float* input = floats_of(normed ? normed : x);
  const Tensor choices = allocate(x.rows, static_cast<std::int64_t>(spec.experts.size()));
  product(cuda_weight(*spec.router), input, x.rows, {.y = floats_of(choices), .columns = choices.columns});
  std::vector<float> logits(static_cast<std::size_t>(choices.rows) *
                            static_cast<std::size_t>(choices.columns));
  read(choices, logits);
  route(logits, host_floats(spec.router_bias), host_floats(spec.selection_bias), spec, routing_);

  // rows, then places, then weights: four bytes each, [rows · used]. The host waited in read(), so nothing is
  // on its way from the buffer.
  const std::size_t places = routing_.rows.size();
  auto* staged = reinterpret_cast<int*>(results_.reserve(3 * places * sizeof(int)));
  std::ranges::copy(routing_.rows, staged);
  std::ranges::copy(routing_.places, staged + places);
  std::ranges::copy(routing_.weights, reinterpret_cast<float*>(staged + 2 * places));
  const Scratch index(memory_, 3 * places * sizeof(int));
  check(
      cudaMemcpyAsync(index.data(), staged, 3 * places * sizeof(int), cudaMemcpyHostToDevice, stream_.get()),
      "an expert's rows");
  const auto* rows = static_cast<const int*>(index.data());

  const auto wide = static_cast<std::size_t>(x.columns);
  const Scratch grouped(memory_, places * wide * sizeof(float)),
      outputs(memory_, places * wide * sizeof(float));
  gather_rows(stream_.get(), input, rows, static_cast<int>(places), x.columns, grouped.floats());
  run_experts(spec, grouped.floats(), x.columns, outputs.floats());
  const Tensor y = spec.residual ? spec.residual : allocate(x.rows, x.columns);
  mix_rows(stream_.get(), outputs.floats(), rows + places, reinterpret_cast<const float*>(rows + 2 * places),
           spec.used, x.rows, x.columns, floats_of(spec.residual), floats_of(y));
  release(choices);
  release(normed);
  return y;
}

}  // namespace mlxs::cuda
