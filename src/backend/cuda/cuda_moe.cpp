// A mixture of experts without the host: the router's logits are routed on the GPU, and each chosen expert
// multiplies its own rows, its weights read once.
#include <fmt/format.h>

#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/expert_arrays.h"
#include "backend/cuda/op_specs.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr std::size_t kMostExperts = 2048;  // what route() takes
constexpr int kThinAverage = 12;            // rows an expert, up to which thin() is faster

RouteGate gate_of(MoeSpec::Gate gate) {
  switch (gate) {
    case MoeSpec::Gate::kSoftmax:
      return RouteGate::kSoftmax;
    case MoeSpec::Gate::kSoftmaxOfChosen:
      return RouteGate::kSoftmaxOfChosen;
    case MoeSpec::Gate::kSigmoid:
      return RouteGate::kSigmoid;
  }
  return RouteGate::kSoftmax;
}

bool alike(const CudaWeight& a, const CudaWeight& b) {
  return std::ranges::equal(a.segments(), b.segments(), [](const Rows& x, const Rows& y) {
    return x.type == y.type && x.group_shift == y.group_shift && x.rows == y.rows && x.columns == y.columns;
  });
}

// [segments][experts] on the GPU.
const ExpertWeight* table_of(std::span<const Expert> experts, WeightPtr Expert::*which,
                             WeightPtr Expert::*bias) {
  const CudaWeight& first = cuda_weight(*(experts.front().*which));
  DeviceBuffer& table = first.expert_table();
  if (table.data() == nullptr) {
    std::vector<ExpertWeight> entries;
    for (std::size_t s = 0; s < first.segments().size(); ++s) {
      for (const Expert& expert : experts) {
        const CudaWeight& weight = cuda_weight(*(expert.*which));
        if (!alike(weight, first)) {
          throw Error(ErrorCode::kModelLoad, "the experts of a layer are stored in different types",
                      "use --backend cpu, or a model whose experts are quantized alike");
        }
        entries.push_back(
            {weight.segments()[s].codes, weight.segments()[s].scales, floats_of((expert.*bias).get())});
      }
    }
    table = uploaded(std::as_bytes(std::span(entries)), "a layer's experts");
  }
  return reinterpret_cast<const ExpertWeight*>(table.data());
}

}  // namespace

bool CudaBackend::expert_product(const CudaWeight& shape, const ExpertWeight* table, ExpertRows rows,
                                 const Operand& x, const Finish& f) {
  bool held = false;
  const auto each = [&](const Finish& to) {
    for (std::size_t s = 0; s < shape.segments().size(); ++s) {
      rows.table = table + s * static_cast<std::size_t>(rows.count);
      const Rows& w = shape.segments()[s];
      const int column = shape.first_rows()[s];
      if (shape.segments().size() == 1 && !x.wide && takes_experts(w, to, rows.places, rows.count)) {
        expert_rows(stream_.get(), w, x, to, rows, multiprocessors_);
        held = true;
      } else if (x.wide) {
        cuda::wide(stream_.get(), w, x, {}, rows.places, column, 1, 0, to, rows);
      } else {
        thin(stream_.get(), w, {.operand = x}, rows.places, column, to, rows, {}, multiprocessors_);
      }
    }
  };
  if (!f.gated || gates_at_once(shape)) {
    each(f);
    return held;
  }
  const int outputs = static_cast<int>(shape.rows());  // gates and ups apart, then together
  const Scratch sums(
      memory_, static_cast<std::size_t>(rows.places) * static_cast<std::size_t>(outputs) * sizeof(float));
  each({.y = sums.floats(), .columns = outputs});
  finish(stream_.get(), sums.floats(), 1, rows.places, f);
  return held;
}

bool CudaBackend::takes_few(Tensor x, const MoeSpec& spec) const {
  const CudaWeight& gate_up = cuda_weight(*spec.experts.front().gate_up);
  return x.rows <= kFewRows && spec.used <= kMostFewUsed && spec.experts.size() <= kMostFewExperts &&
         gates_at_once(gate_up) && cuda_weight(*spec.experts.front().down).segments().size() == 1 &&
         cuda_weight(*spec.router).segments().size() == 1;
}

void CudaBackend::few_experts(Tensor x, const MoeSpec& spec, const Route& route, Tensor y) {
  const CudaWeight &router = cuda_weight(*spec.router), &gate_up = cuda_weight(*spec.experts.front().gate_up),
                   &down = cuda_weight(*spec.experts.front().down);
  Input input = input_for(router, x, spec.norm, false);
  if (input.thin.raw != nullptr) {  // the router's product leaves what it normalized for the experts
    input.thin.operand = make_operand(x.rows, x.columns, false);
    input.owned = input.thin.operand.data;
  }
  const int places = x.rows * spec.used;
  const Scratch choices(memory_, static_cast<std::size_t>(x.rows) * spec.experts.size() * sizeof(float));
  const Scratch chosen(memory_, 2 * static_cast<std::size_t>(places) * sizeof(int));
  const Scratch factors(memory_, static_cast<std::size_t>(x.rows) * sizeof(float));
  if (input.thin.means.squares != nullptr) input.thin.means.factors = factors.floats();
  FewRows few{.part = FewRows::Part::kRouter,
              .logits = choices.floats(),
              .positions = index_.rows().positions,
              .counter = reinterpret_cast<int*>(counters_.data()) + kAttentionCounters,
              .route = route,
              .factors = input.thin.means.factors,
              .chosen = static_cast<int*>(chosen.data()),
              .weights = chosen.floats() + places};
  thin(stream_.get(), router.segments().front(), input.thin, x.rows, 0,
       {.y = choices.floats(), .columns = route.experts}, {}, few, multiprocessors_);
  const Operand inner = make_operand(places, static_cast<int>(down.columns()), false);
  few.part = FewRows::Part::kGated;
  few.table = table_of(spec.experts, &Expert::gate_up, &Expert::gate_up_bias);
  thin(stream_.get(), gate_up.segments().front(), {.operand = input.thin.operand}, x.rows, 0,
       {.operand = inner,
        .columns = static_cast<int>(down.columns()),
        .act = act_of(spec.activation),
        .gated = true},
       {}, few, multiprocessors_);
  few.part = FewRows::Part::kMixed;
  few.table = table_of(spec.experts, &Expert::down, &Expert::down_bias);
  overwrite(y);  // may be x, which the others have read
  Finish f{.residual = floats_of(spec.residual), .y = floats_of(y), .columns = x.columns};
  leave_normed(f, y, spec.next, true);
  note_parts(y, thin(stream_.get(), down.segments().front(), {.operand = inner}, x.rows, 0, f, {}, few,
                     multiprocessors_));
  memory_.release(inner.data);
  memory_.release(input.owned);
}

Tensor CudaBackend::moe(Tensor x, const MoeSpec& spec) {
  if (graphs_.replaying()) return graphs_.next();
  if (spec.experts.size() > kMostExperts) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("the CUDA backend takes {} experts a layer, this one has {}", kMostExperts,
                            spec.experts.size()));
  }
  const auto count = static_cast<int>(spec.experts.size()), places = x.rows * spec.used;
  const Route way{.experts = count,
                  .used = spec.used,
                  .groups = spec.groups,
                  .groups_used = spec.groups_used,
                  .gate = gate_of(spec.gate),
                  .normalize = spec.normalize,
                  .scale = spec.scale,
                  .router_bias = floats_of(spec.router_bias),
                  .selection_bias = floats_of(spec.selection_bias)};
  if (takes_few(x, spec)) {
    const Tensor y = spec.residual ? spec.residual : allocate(x.rows, x.columns);
    few_experts(x, spec, way, y);
    return graphs_.note(y);
  }
  // By the rows that an expert gets, which may be few where those of the router are many.
  const bool wide_experts = hopper_ && places > kThinAverage * count;
  const CudaWeight& router = cuda_weight(*spec.router);
  const bool wide_router = wide(x.rows, router.columns(), router.rows());
  const Normed* made = wide_router ? nullptr : normed(x, spec.norm, false);
  Input input = made == nullptr ? input_of(x, spec.norm, wide_router)
                                : Input{.thin = {.operand = made->operand, .means = made->means}};
  const Scratch factors(memory_, static_cast<std::size_t>(x.rows) * sizeof(float));
  if (input.thin.means.squares != nullptr) input.thin.means.factors = factors.floats();
  const Scratch choices(memory_, static_cast<std::size_t>(x.rows) * spec.experts.size() * sizeof(float));
  product(router, input.thin, x.rows, {.y = choices.floats(), .columns = count});

  const auto all = static_cast<std::size_t>(places), wide = static_cast<std::size_t>(x.columns);
  const Scratch routing(memory_, (3 * all + ExpertArrays::ints(count)) * sizeof(int));
  auto* numbers = static_cast<int*>(routing.data());
  const ExpertArrays order(numbers + 3 * all, count);
  const Routed routed{.weights = routing.floats(),
                      .places = numbers + all,
                      .rows = numbers + 2 * all,
                      .first = order.first,
                      .turns = order.turns,
                      .alive = order.alive,
                      .leading = order.leading,
                      .active = order.active};
  route(stream_.get(), choices.floats(), index_.rows().positions, x.rows, way, routed);

  const CudaWeight &gate_up = cuda_weight(*spec.experts.front().gate_up),
                   &down = cuda_weight(*spec.experts.front().down);
  const Input own = wide_experts == input.thin.operand.wide ? Input{} : input_of(x, spec.norm, wide_experts);
  const bool apart = own.thin.operand.data != nullptr;  // from the router's
  ExpertRows rows{.first = routed.first,
                  .active = routed.active,
                  .turns = routed.turns,
                  .alive = routed.alive,
                  .rows = routed.rows,
                  .leading = routed.leading,
                  .factors = apart ? nullptr : input.thin.means.factors,
                  .count = count,
                  .places = places};
  const Operand inner = make_operand(places, static_cast<int>(down.columns()), wide_experts);
  rows.older = expert_product(gate_up, table_of(spec.experts, &Expert::gate_up, &Expert::gate_up_bias), rows,
                              apart ? own.thin.operand : input.thin.operand,
                              {.operand = inner,
                               .columns = static_cast<int>(down.columns()),
                               .act = act_of(spec.activation),
                               .gated = true});
  rows.rows = nullptr;
  rows.factors = nullptr;
  // Many rows' outputs in bf16, as half as much is written and read.
  const bool brief = wide_experts && x.columns % 32 == 0;
  const Operand short_outputs = brief ? make_operand(places, x.columns, true) : Operand{};
  const Scratch outputs(memory_, brief ? 1 : all * wide * sizeof(float));
  expert_product(down, table_of(spec.experts, &Expert::down, &Expert::down_bias), rows, inner,
                 {.y = brief ? nullptr : outputs.floats(), .operand = short_outputs, .columns = x.columns});
  const float* residual = floats(spec.residual);
  const Tensor y = spec.residual ? overwrite(spec.residual) : allocate(x.rows, x.columns);
  if (brief) {
    mix_operand_rows(stream_.get(), short_outputs, routed.places, routed.weights, spec.used, x.rows,
                     x.columns, residual, floats_of(y));
  } else {
    Finish f{.residual = residual, .y = floats_of(y), .columns = x.columns};
    leave_normed(f, y, spec.next, true);
    note_parts(y, mix_rows(stream_.get(), outputs.floats(), routed.places, routed.weights, spec.used, x.rows,
                           rows.older, f));
  }
  memory_.release(short_outputs.data);
  memory_.release(inner.data);
  memory_.release(own.owned);
  memory_.release(input.owned);
  return graphs_.note(y);
}

}  // namespace mlxs::cuda
