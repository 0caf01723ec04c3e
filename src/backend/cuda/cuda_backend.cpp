#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "backend/cuda/cuda_kv.h"
#include "backend/cuda/op_specs.h"
#include "backend/cuda/pack_rows.h"
#include "backend/metal_options.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
Stream::Stream(int device) {
  use_device(device);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
}

CudaBackend::CudaBackend(int device, int threads, const MetalOptimizations& optimizations)
    : device_(device),
      stream_(device),
      pool_(threads),
      isa_(cpu::choose_isa()),
      copies_(make_part(optimizations, optimizations.blit_queue.enabled, "blit_queue",
                        [&] { return std::make_unique<CopyStream>(device, optimizations.blit_queue); })),
      weights_(device, threads, copies_.get()),
      heaps_(make_part(
          optimizations, optimizations.memory_pool.enabled, "memory_pool",
          [&] { return std::make_unique<HeapPool>(optimizations.memory_pool, heap_memory(stream_.get())); })),
      memory_(heaps_.get()) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "the device's properties");
  multiprocessors_ = properties.multiProcessorCount;
  hopper_ = properties.major == 9;
  name_ = fmt::format("{}, sm_{}{}, {} multiprocessors", properties.name, properties.major, properties.minor,
                      multiprocessors_);
  picks_ = DeviceBuffer(kMostPicks * sizeof(Pick), "sampling");
  for (Turn& turn : turns_) {
    turn.picks.reserve(kMostPicks * sizeof(Pick));
    turn.bests.reserve(kMostPicks * kMostBest * sizeof(Best));
  }
  if (hopper_) {
    std::string obstacle;
    blas_ = Blas::load(obstacle);
    name_ +=
        blas_ != nullptr ? ", cuBLASLt " + blas_->version() : fmt::format(", no cuBLASLt ({})", obstacle);
  }
  counters_ = DeviceBuffer((kAttentionCounters + 2) * sizeof(int), "attention");
  check(cudaMemsetAsync(counters_.data(), 0, counters_.bytes(), stream_.get()), "attention");
}

CudaBackend::~CudaBackend() { cudaStreamSynchronize(stream_.get()); }

DeviceInfo CudaBackend::device() const {
  use_device(device_);
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "the free memory");
  return {.name = "cuda",
          .description = fmt::format("device {}: {}", device_, name_),
          .memory_bytes = total,
          .free_bytes = free + weights_.staging_bytes(),
          .own_memory = true};
}

MetalOptimizationsStats CudaBackend::optimization_stats() const {
  MetalOptimizationsStats stats;
  if (heaps_) stats.memory_pool = heaps_->stats();
  if (copies_) stats.blit_queue = copies_->stats();
  return stats;
}

double CudaBackend::read_gb_per_second() {
  constexpr std::size_t kBytes = std::size_t{4} << 30;
  use_device(device_);
  const DeviceBuffer memory(kBytes, "measuring the memory"), sink(sizeof(unsigned), "measuring the memory");
  check(cudaMemsetAsync(memory.data(), 0, kBytes, stream_.get()), "measuring the memory");
  double best = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    check(cudaStreamSynchronize(stream_.get()), "measuring the memory");
    const auto started = std::chrono::steady_clock::now();
    read_all(stream_.get(), memory.data(), kBytes, multiprocessors_,
             reinterpret_cast<unsigned*>(sink.data()));
    check(cudaStreamSynchronize(stream_.get()), "measuring the memory");
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    best = std::max(best, static_cast<double>(kBytes) / took.count());
  }
  return best * 1e-9;
}

WeightPtr CudaBackend::prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache*) {
  use_device(device_);
  return std::make_unique<CudaWeight>(weights_, arena_, parts, use);  // repacking is cheaper than a cache
}

void CudaBackend::finish_loading() {
  use_device(device_);
  arena_.close();
  weights_.finish();
}

std::size_t CudaBackend::packed_size(const RawWeight& raw, WeightUse use) const {
  if (use == WeightUse::kVector)
    return static_cast<std::size_t>(raw.rows) * static_cast<std::size_t>(raw.columns) * sizeof(float);
  return static_cast<std::size_t>(padded_rows(raw.rows)) * row_bytes_of(packing_of(raw), raw.columns);
}

std::unique_ptr<KvStore> CudaBackend::make_kv(const KvSpec& spec) {
  finish_loading();
  return std::make_unique<CudaKvStore>(spec, stream_.get());
}

void CudaBackend::copy_page(KvStore& kv, PageId from, PageId to) {
  static_cast<CudaKvStore&>(kv).copy_page(from, to);
}

void CudaBackend::copy_window_page(KvStore& kv, PageId from, PageId to) {
  static_cast<CudaKvStore&>(kv).copy_window_page(from, to);
}

Tensor CudaBackend::allocate(std::int32_t rows, std::int64_t columns) {
  return {memory_.floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns)), rows,
          static_cast<std::int32_t>(columns)};
}

Operand CudaBackend::make_operand(int rows, int columns, bool wide) {
  const int stride = operand_stride(columns);
  const std::size_t bytes = static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride) * 2;
  void* data = memory_.allocate(bytes + kOperandSlack);
  if (stride != columns) check(cudaMemsetAsync(data, 0, bytes, stream_.get()), "an operand");
  return {data, stride, wide};
}

Operand CudaBackend::make_twin(Tensor tensor) {
  return twins_[tensor.handle] =
             make_operand(tensor.rows, tensor.columns, wide(tensor.rows, tensor.columns, hidden_));
}

Tensor CudaBackend::overwrite(Tensor tensor) {
  if (const auto twin = twins_.find(tensor.handle); twin != twins_.end()) {
    memory_.release(twin->second.data);
    twins_.erase(twin);
  }
  unwritten_.erase(tensor.handle);
  forget_normed(tensor);
  return tensor;
}

float* CudaBackend::floats(Tensor tensor) {
  if (unwritten_.erase(tensor.handle) > 0) {
    widen_operand(stream_.get(), twins_.at(tensor.handle), tensor.rows, tensor.columns, floats_of(tensor));
  }
  return floats_of(tensor);
}

void CudaBackend::release(Tensor tensor) {
  if (graphs_.replaying()) return;
  brief_.erase(tensor.handle);
  memory_.release(overwrite(tensor).handle);
}

CudaBackend::Input CudaBackend::input_of(Tensor x, const NormSpec* norm, bool wide) {
  const auto twin = twins_.find(x.handle);
  if (norm == nullptr && twin != twins_.end() && twin->second.wide == wide)
    return {.thin = {.operand = twin->second}};
  if (const Normed* made = normed(x, norm, wide); made != nullptr && made->squares == nullptr)
    return {.thin = {.operand = made->operand}};
  const int stride = operand_stride(x.columns);
  const std::size_t bytes = static_cast<std::size_t>(x.rows) * static_cast<std::size_t>(stride) * 2;
  const Operand made{memory_.allocate(bytes + kOperandSlack), stride, wide};
  const Norm as = norm != nullptr ? norm_of(*norm) : Norm{};
  normalize_operand(stream_.get(), floats(x), x.rows, x.columns, norm != nullptr ? &as : nullptr, made);
  return {.thin = {.operand = made}, .owned = made.data};
}

CudaBackend::Input CudaBackend::input_for(const CudaWeight& weight, Tensor x, const NormSpec* norm,
                                          bool gated) {
  const bool as_wide = wide(x.rows, weight.columns(), weight.rows());
  if (const Normed* made = normed(x, norm, as_wide))
    return {.thin = {.operand = made->operand, .means = made->means}};
  if (norm == nullptr || as_wide || weight.segments().size() != 1 || (gated && !gates_at_once(weight)) ||
      !thin_normalizes(weight.segments().front(), x.rows, gated, norm_of(*norm), multiprocessors_)) {
    return input_of(x, norm, as_wide);
  }
  return {.thin = {.operand = {.stride = operand_stride(x.columns)},
                   .raw = floats(x),
                   .columns = x.columns,
                   .norm = norm_of(*norm)}};
}

Tensor CudaBackend::embed(const Weight& table, float scale) {
  if (graphs_.replaying()) return graphs_.next();
  const CudaWeight& weight = cuda_weight(table);
  hidden_ = weight.columns();
  const Tensor y = allocate(index_.rows().rows, weight.columns());
  cuda::embed(stream_.get(), weight.segments().data(), weight.first_rows().data(),
              static_cast<int>(weight.segments().size()), index_.tokens(), y.rows, scale, false,
              floats_of(y));
  return graphs_.note(y);
}

void CudaBackend::set_position_rows(std::span<const std::int32_t> rows) {
  // An encoder's steps end before the next begins, so the last one's copy has been made.
  std::byte* staged = position_staging_.reserve(rows.size_bytes());
  std::ranges::copy(std::as_bytes(rows), staged);
  void* on_gpu = memory_.allocate(rows.size_bytes());
  check(cudaMemcpyAsync(on_gpu, staged, rows.size_bytes(), cudaMemcpyHostToDevice, stream_.get()),
        "positions");
  position_rows_ = static_cast<const int*>(on_gpu);
}

Tensor CudaBackend::add_positions(Tensor x, const Weight& table) {
  const CudaWeight& weight = cuda_weight(table);
  cuda::embed(stream_.get(), weight.segments().data(), weight.first_rows().data(),
              static_cast<int>(weight.segments().size()), position_rows_, x.rows, 1.0f, true, floats(x));
  return overwrite(x);
}

Tensor CudaBackend::norm(Tensor x, const NormSpec& spec) {
  if (graphs_.replaying()) return graphs_.next();
  const Tensor y = allocate(x.rows, x.columns);
  normalize(stream_.get(), floats(x), x.rows, x.columns, norm_of(spec), nullptr, floats_of(y));
  return graphs_.note(y);
}

Tensor CudaBackend::linear(Tensor x, const Weight& weight, const LinearSpec& spec) {
  if (graphs_.replaying()) return graphs_.next();
  const std::int64_t columns = spec.gated ? weight.rows() / 2 : weight.rows();
  const Input input = input_for(cuda_weight(weight), x, spec.norm, spec.gated);
  const bool many = by_blas(cuda_weight(weight), x.rows) && !spec.residual;
  if (many && spec.for_attention && !single_ && !spec.gated && spec.activation == Activation::kNone) {
    const Tensor y{memory_.allocate(static_cast<std::size_t>(x.rows) * static_cast<std::size_t>(columns) * 2),
                   x.rows, static_cast<std::int32_t>(columns)};
    brief_[y.handle] = {.data = y.handle, .bias = floats_of(spec.bias), .bf16 = true};
    blas_product(cuda_weight(weight), input.thin.operand, x.rows, {.columns = y.columns}, y.handle);
    memory_.release(input.owned);
    return graphs_.note(y);
  }
  const float* residual = floats(spec.residual);
  const Tensor y = spec.residual && spec.residual.handle != x.handle ? overwrite(spec.residual)
                                                                     : allocate(x.rows, columns);
  Finish f{.bias = floats_of(spec.bias),
           .residual = residual,
           .y = many && spec.gated ? nullptr : floats_of(y),
           .operand = spec.gated ? make_twin(y) : Operand{},  // goes into another product next
           .columns = y.columns,
           .act = act_of(spec.activation),
           .gated = spec.gated};
  if (!spec.gated && ends_in_product(cuda_weight(weight), x.rows)) leave_normed(f, y, spec.next, false);
  note_parts(y, product(cuda_weight(weight), input.thin, x.rows, f));
  if (many && spec.gated) unwritten_.insert(y.handle);
  memory_.release(input.owned);
  return graphs_.note(y);
}

Tensor CudaBackend::assemble(std::span<const ColumnRuns> parts, std::int32_t columns) {
  if (graphs_.replaying()) return graphs_.next();
  const Tensor y = allocate(parts.front().from.rows, columns);
  for (const ColumnRuns& part : parts) {
    copy_columns(stream_.get(), floats(part.from) + part.first, part.from.columns, part.step,
                 floats_of(y) + part.to, columns, part.to_step, y.rows, part.runs, part.columns);
  }
  return graphs_.note(y);
}

Tensor CudaBackend::attention(Tensor qkv, const AttentionSpec& spec) {
  if (graphs_.replaying()) return graphs_.next();
  const auto& store = static_cast<CudaKvStore&>(*batch_.kv);
  const KvLayer kv = store.layer(spec.layer);
  const StepRows& rows = store.windowed(spec.layer) ? index_.window_rows() : index_.rows();
  const Attention attention{.heads = spec.heads,
                            .scale = spec.scale,
                            .causal = spec.causal,
                            .window = spec.window,
                            .soft_cap = spec.soft_cap,
                            .sinks = floats_of(spec.sinks),
                            .norm_query = spec.query_norm != nullptr,
                            .norm_key = spec.key_norm != nullptr,
                            .query_norm = spec.query_norm != nullptr ? norm_of(*spec.query_norm) : Norm{},
                            .key_norm = spec.key_norm != nullptr ? norm_of(*spec.key_norm) : Norm{},
                            .rotation = index_.rotation(spec.rope, memory_, stream_.get())};
  const Tensor y = allocate(qkv.rows, static_cast<std::int64_t>(spec.heads) * spec.value_dim);
  const auto heads = static_cast<std::size_t>(qkv.rows) * static_cast<std::size_t>(spec.heads);
  const bool groups = single_ && attends_in_groups(kv), latents = attends_latents(kv);
  const bool tiles = !groups && attends_in_tiles(rows, spec.heads, kv, multiprocessors_, hopper_),
             appends = tiles || latents || !single_;
  const Scratch q(memory_, appends ? heads * static_cast<std::size_t>(spec.key_dim) * sizeof(float) : 1);
  if (appends) {
    const auto brief = brief_.find(qkv.handle);
    append(stream_.get(), brief != brief_.end() ? brief->second : Qkv{.data = floats(qkv)}, rows, attention,
           kv, q.floats());
  }
  if (tiles) {
    unwritten_.insert(y.handle);  // a product takes the operand
    if (hopper_ && attends_wide(kv)) {
      attend_wide(stream_.get(), q.floats(), rows, attention, kv, nullptr, make_twin(y), multiprocessors_);
    } else {
      attend_tiles(stream_.get(), q.floats(), rows, attention, kv, nullptr, make_twin(y));
    }
    return graphs_.note(y);
  }
  const int splits = groups    ? group_splits(rows, spec.heads, kv, multiprocessors_)
                     : latents ? latent_splits(rows, spec.heads, kv, multiprocessors_)
                               : attention_splits(rows, spec.heads, kv, multiprocessors_);
  const Scratch partial(memory_, splits == 1
                                     ? 1
                                     : static_cast<std::size_t>(splits) * heads *
                                           static_cast<std::size_t>(spec.value_dim + 2) * sizeof(float));
  auto* counters = reinterpret_cast<int*>(counters_.data());
  if (groups) {
    attend_groups(stream_.get(), floats_of(qkv), rows, attention, kv, splits, partial.floats(), counters,
                  floats_of(y), make_twin(y), multiprocessors_);
    return graphs_.note(y);
  }
  if (latents) {
    attend_latents(stream_.get(), q.floats(), rows, attention, kv, splits, partial.floats(), counters,
                   floats_of(y), make_twin(y));
    return graphs_.note(y);
  }
  attend(stream_.get(), appends ? q.floats() : nullptr, floats_of(qkv), rows, attention, kv, splits,
         partial.floats(), counters, floats_of(y), make_twin(y));
  return graphs_.note(y);
}

Tensor CudaBackend::gather_sampled(Tensor x) {
  if (graphs_.replaying()) return graphs_.next();
  if (batch_.sampled_rows.size() == batch_.tokens.size()) return graphs_.note(x);  // all, in order
  const Tensor y = allocate(static_cast<std::int32_t>(batch_.sampled_rows.size()), x.columns);
  if (y.rows > 0) gather_rows(stream_.get(), floats(x), index_.sampled(), y.rows, x.columns, floats_of(y));
  return graphs_.note(y);
}

Tensor CudaBackend::logits(Tensor x, const Weight& head, const NormSpec* norm_spec, float soft_cap) {
  Turn& turn = turns_[turn_];
  Tensor y, room;
  if (graphs_.replaying()) {
    y = graphs_.next();
    if (turn.masked) room = graphs_.next();
  } else {
    y = graphs_.note(allocate(x.rows, head.rows()));
    if (x.rows == 0) return y;
    const Input input = input_for(cuda_weight(head), x, norm_spec, false);
    product(cuda_weight(head), input.thin, x.rows,
            {.y = floats_of(y), .columns = y.columns, .soft_cap = soft_cap});
    memory_.release(input.owned);
    if (turn.masked) room = graphs_.note({memory_.allocate(room_of(turn, y.rows, y.columns).bytes)});
  }
  turn.room = static_cast<std::byte*>(room.handle);
  if (turn.masked) hand_over();
  return y;
}

void CudaBackend::read(Tensor tensor, std::span<float> out) {
  const auto count = static_cast<std::size_t>(tensor.rows) * static_cast<std::size_t>(tensor.columns);
  check(cudaMemcpyAsync(out.data(), floats(tensor), std::min(count, out.size()) * sizeof(float),
                        cudaMemcpyDeviceToHost, stream_.get()),
        "reading a tensor");
  check(cudaStreamSynchronize(stream_.get()), "reading a tensor");
}

}  // namespace mlxs::cuda
