#include "backend/cpu/moe.h"

#include <cstring>

namespace mlxs::cpu {
namespace {

const CpuWeight& cpu_weight(const Weight& weight) { return static_cast<const CpuWeight&>(weight); }
const float* floats_of(const Weight* weight) {
  return weight != nullptr ? cpu_weight(*weight).floats() : nullptr;
}
std::span<const float> span_of(const Weight* weight, std::size_t size) {
  return weight != nullptr ? std::span(cpu_weight(*weight).floats(), size) : std::span<const float>{};
}

}  // namespace

void moe(ThreadPool& pool, const LinearPath& path, StepArena& arena, const MoeSpec& spec,
         const LinearInput& in, float* y, MoeRouting& routing) {
  if (in.rows == 0) return;
  const auto rows = static_cast<std::size_t>(in.rows);
  const auto hidden = static_cast<std::size_t>(spec.router->columns());
  const std::size_t experts = spec.experts.size();
  const std::size_t inner = static_cast<std::size_t>(spec.experts[0].down->columns());

  const ScratchBlock norm_block(arena, rows * hidden * sizeof(float));
  auto* x = static_cast<float*>(norm_block.data());
  normalize(pool, path, in, static_cast<std::int64_t>(hidden), x, hidden);

  const ScratchBlock logit_block(arena, rows * experts * sizeof(float));
  auto* logits = static_cast<float*>(logit_block.data());
  // As the head of the model: rounding the router's inputs to bf16 would change choices.
  linear(pool, LinearPath{path.dots, nullptr}, arena, cpu_weight(*spec.router),
         {.x = x, .stride = hidden, .rows = in.rows, .norm = {}}, {.y = logits, .stride = experts});
  route({logits, rows * experts}, span_of(spec.router_bias, experts), span_of(spec.selection_bias, experts),
        spec, routing);

  const std::size_t places = routing.rows.size();
  const ScratchBlock in_block(arena, places * hidden * sizeof(float));
  const ScratchBlock inner_block(arena, places * inner * sizeof(float));
  const ScratchBlock out_block(arena, places * hidden * sizeof(float));
  auto* grouped = static_cast<float*>(in_block.data());
  auto* gated = static_cast<float*>(inner_block.data());
  auto* mixed = static_cast<float*>(out_block.data());
  pool.parallel_for(static_cast<std::int64_t>(places), 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto place = static_cast<std::size_t>(begin); place < static_cast<std::size_t>(end); ++place) {
      std::memcpy(grouped + place * hidden, x + static_cast<std::size_t>(routing.rows[place]) * hidden,
                  hidden * sizeof(float));
    }
  });
  for (std::size_t e = 0; e < experts; ++e) {
    const auto first = static_cast<std::size_t>(routing.first_row[e]);
    const int count = routing.first_row[e + 1] - routing.first_row[e];
    if (count == 0) continue;
    const Expert& expert = spec.experts[e];
    linear(pool, path, arena, cpu_weight(*expert.gate_up),
           {.x = grouped + first * hidden, .stride = hidden, .rows = count, .norm = {}},
           {.y = gated + first * inner,
            .stride = inner,
            .bias = floats_of(expert.gate_up_bias.get()),
            .activation = spec.activation,
            .gated = true});
    linear(pool, path, arena, cpu_weight(*expert.down),
           {.x = gated + first * inner, .stride = inner, .rows = count, .norm = {}},
           {.y = mixed + first * hidden, .stride = hidden, .bias = floats_of(expert.down_bias.get())});
  }
  const auto* residual = static_cast<const float*>(spec.residual.handle);
  const auto used = static_cast<std::size_t>(routing.used);
  pool.parallel_for(in.rows, 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
      float* to = y + row * hidden;
      if (residual == nullptr) {
        std::memset(to, 0, hidden * sizeof(float));
      } else if (residual != y) {
        std::memcpy(to, residual + row * hidden, hidden * sizeof(float));
      }
      for (std::size_t j = 0; j < used; ++j) {
        const float weight = routing.weights[row * used + j];
        const float* from = mixed + static_cast<std::size_t>(routing.places[row * used + j]) * hidden;
        for (std::size_t i = 0; i < hidden; ++i) to[i] += weight * from[i];
      }
    }
  });
}

}  // namespace mlxs::cpu
