#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "backend/cuda/cuda_factory.h"
#include "backend/cuda/cuda_kv.h"
#include "backend/cuda/op_specs.h"
#include "backend/cuda/pack_rows.h"
#include "mlxs/error.h"

namespace mlxs::cuda {

Stream::Stream(int device) {
  check(cudaSetDevice(device), fmt::format("device {}", device));
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
}

CudaBackend::CudaBackend(int device, int threads)
    : device_(device), stream_(device), pool_(threads), isa_(cpu::choose_isa()), uploader_(stream_.get()) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "the device's properties");
  multiprocessors_ = properties.multiProcessorCount;
  name_ = fmt::format("{}, sm_{}{}, {} multiprocessors", properties.name, properties.major, properties.minor,
                      multiprocessors_);
}

CudaBackend::~CudaBackend() { cudaStreamSynchronize(stream_.get()); }

DeviceInfo CudaBackend::device() const {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "the free memory");
  return {.name = "cuda",
          .description = fmt::format("device {}: {}", device_, name_),
          .memory_bytes = total,
          .free_bytes = free};
}

double CudaBackend::read_gb_per_second() {
  constexpr std::size_t kBytes = std::size_t{4} << 30;
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
  return std::make_unique<CudaWeight>(pool_, uploader_, parts, use);  // repacking is cheaper than a cache
}

std::size_t CudaBackend::packed_size(const RawWeight& raw, WeightUse use) const {
  const auto rows = static_cast<std::size_t>(raw.rows);
  if (use == WeightUse::kVector) return rows * static_cast<std::size_t>(raw.columns) * sizeof(float);
  return rows * row_bytes_of(packing_of(raw), raw.columns);
}

std::unique_ptr<KvStore> CudaBackend::make_kv(const KvSpec& spec) {
  return std::make_unique<CudaKvStore>(spec, stream_.get());
}

void CudaBackend::copy_page(KvStore& kv, PageId from, PageId to) {
  static_cast<CudaKvStore&>(kv).copy_page(from, to);
}

Tensor CudaBackend::allocate(std::int32_t rows, std::int64_t columns) {
  return {memory_.floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns)), rows,
          static_cast<std::int32_t>(columns)};
}

void CudaBackend::begin_step(const Batch& batch) {
  // A step that was left by an exception may still be running; its index must not change under it.
  check(cudaStreamSynchronize(stream_.get()), "the step before");
  batch_ = batch;
  sampling_.clear();
  sampled_.clear();
  memory_.reset();
  index_.begin(batch, memory_, stream_.get());
}

Tensor CudaBackend::embed(const Weight& table, float scale) {
  const CudaWeight& weight = cuda_weight(table);
  const Tensor y = allocate(static_cast<std::int32_t>(batch_.tokens.size()), weight.columns());
  cuda::embed(stream_.get(), weight.segments().data(), weight.first_rows().data(),
              static_cast<int>(weight.segments().size()), index_.tokens(), y.rows, scale, floats_of(y));
  return y;
}

Tensor CudaBackend::norm(Tensor x, const NormSpec& spec) {
  const Tensor y = allocate(x.rows, x.columns);
  normalize(stream_.get(), floats_of(x), x.rows, x.columns, norm_of(spec), nullptr, floats_of(y));
  return y;
}

Tensor CudaBackend::add_norm(Tensor x, const NormSpec& spec, Tensor residual) {
  normalize(stream_.get(), floats_of(x), x.rows, x.columns, norm_of(spec), floats_of(residual),
            floats_of(residual));
  return residual;
}

void CudaBackend::product(const CudaWeight& weight, const float* x, int rows, const Finish& f) {
  const int outputs = static_cast<int>(weight.rows());
  const bool narrow = rows <= kMatvecRows;
  const auto each = [&](auto&& run) {
    for (std::size_t s = 0; s < weight.segments().size(); ++s)
      run(weight.segments()[s], weight.first_rows()[s]);
  };
  if (narrow && !f.gated)
    return each([&](const Rows& w, int first) { matvec(stream_.get(), w, x, rows, first, f); });

  const int splits =
      narrow ? 1 : matmul_splits(outputs, static_cast<int>(weight.columns()), rows, multiprocessors_);
  const Scratch sums(memory_, static_cast<std::size_t>(splits) * static_cast<std::size_t>(rows) *
                                  static_cast<std::size_t>(outputs) * sizeof(float));
  each([&](const Rows& w, int first) {
    if (narrow) {
      matvec(stream_.get(), w, x, rows, first, {.y = sums.floats(), .columns = outputs});
    } else {
      matmul(stream_.get(), w, x, rows, first, splits, sums.floats(), outputs);
    }
  });
  finish(stream_.get(), sums.floats(), splits, rows, f);
}

Tensor CudaBackend::linear(Tensor x, const Weight& weight, const LinearSpec& spec) {
  const std::int64_t columns = spec.gated ? weight.rows() / 2 : weight.rows();
  const Tensor normed = spec.norm != nullptr ? norm(x, *spec.norm) : Tensor{};
  const Tensor input = normed ? normed : x;
  // In place unless the product still reads what it would overwrite.
  const bool in_place = spec.residual && spec.residual.handle != input.handle;
  const Tensor y = in_place ? spec.residual : allocate(x.rows, columns);
  product(cuda_weight(weight), floats_of(input), x.rows,
          {.bias = floats_of(spec.bias),
           .residual = floats_of(spec.residual),
           .y = floats_of(y),
           .columns = y.columns,
           .act = act_of(spec.activation),
           .gated = spec.gated});
  release(normed);
  return y;
}

Tensor CudaBackend::assemble(std::span<const ColumnRuns> parts, std::int32_t columns) {
  const Tensor y = allocate(parts.front().from.rows, columns);
  for (const ColumnRuns& part : parts) {
    copy_columns(stream_.get(), floats_of(part.from) + part.first, part.from.columns, part.step,
                 floats_of(y) + part.to, columns, part.to_step, y.rows, part.runs, part.columns);
  }
  return y;
}

Tensor CudaBackend::attention(Tensor qkv, const AttentionSpec& spec) {
  const KvLayer kv = static_cast<CudaKvStore&>(*batch_.kv).layer(spec.layer);
  const StepRows& rows = index_.rows();
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
  const Scratch q(memory_, heads * static_cast<std::size_t>(spec.key_dim) * sizeof(float));
  append(stream_.get(), floats_of(qkv), rows, attention, kv, q.floats());
  const int splits = attention_splits(rows, spec.heads, multiprocessors_);
  const Scratch partial(memory_, splits == 1
                                     ? 1
                                     : static_cast<std::size_t>(splits) * heads *
                                           static_cast<std::size_t>(spec.value_dim + 2) * sizeof(float));
  attend(stream_.get(), q.floats(), rows, attention, kv, splits, partial.floats(), floats_of(y));
  return y;
}

Tensor CudaBackend::gather_sampled(Tensor x) {
  const Tensor y = allocate(static_cast<std::int32_t>(batch_.sampled_rows.size()), x.columns);
  if (y.rows > 0) gather_rows(stream_.get(), floats_of(x), index_.sampled(), y.rows, x.columns, floats_of(y));
  return y;
}

Tensor CudaBackend::logits(Tensor x, const Weight& head, const NormSpec* norm_spec, float soft_cap) {
  const Tensor y = allocate(x.rows, head.rows());
  if (x.rows == 0) return y;
  const Tensor normed = norm_spec != nullptr ? norm(x, *norm_spec) : Tensor{};
  product(cuda_weight(head), floats_of(normed ? normed : x), x.rows,
          {.y = floats_of(y), .columns = y.columns, .soft_cap = soft_cap});
  release(normed);
  return y;
}

void CudaBackend::sample(Tensor logits, std::span<const SampleRow> rows) {
  logits_ = logits;
  sampling_.assign(rows.begin(), rows.end());
}

std::span<const Sampled> CudaBackend::end_step() {
  sampled_.resize(sampling_.size());
  const auto plain = [](const SampleRow& row) {
    return row.temperature == 0.0f && row.repetition_penalty == 1.0f && row.presence_penalty == 0.0f &&
           row.frequency_penalty == 0.0f && row.top_logprobs <= 0 && row.bias.empty() && row.allowed.empty();
  };
  bool host = !sampling_.empty();
  if (!sampling_.empty() && std::ranges::all_of(sampling_, plain)) {
    const std::size_t bytes = sampling_.size() * sizeof(Greedy);
    const Scratch picks(memory_, bytes);
    greedy(stream_.get(), floats_of(logits_), logits_.rows, logits_.columns,
           static_cast<Greedy*>(picks.data()));
    auto* picked = reinterpret_cast<Greedy*>(results_.reserve(bytes));
    check(cudaMemcpyAsync(picked, picks.data(), bytes, cudaMemcpyDeviceToHost, stream_.get()), "sampling");
    check(cudaStreamSynchronize(stream_.get()), "the step");
    host = false;
    for (std::size_t i = 0; i < sampled_.size(); ++i) {
      sampled_[i] = {.token = picked[i].token, .logprob = picked[i].logprob};
      host = host || picked[i].token < 0;  // not finite: the host's sampler knows what that means
    }
  }
  if (host) sample_on_host();
  check(cudaStreamSynchronize(stream_.get()), "the step");
  check(cudaGetLastError(), "the step");
  return sampled_;
}

// Everything but plain greedy reads the logits here and uses the CPU's sampler, so that seeds mean the same
// on every backend.
void CudaBackend::sample_on_host() {
  const std::size_t count =
      static_cast<std::size_t>(logits_.rows) * static_cast<std::size_t>(logits_.columns);
  auto* values = reinterpret_cast<float*>(results_.reserve(count * sizeof(float)));
  read(logits_, {values, count});
  cpu::sample(pool_, isa_, values, logits_.rows, logits_.columns, sampling_, sampled_, sample_scratch_);
}

void CudaBackend::read(Tensor tensor, std::span<float> out) {
  const auto count = static_cast<std::size_t>(tensor.rows) * static_cast<std::size_t>(tensor.columns);
  check(cudaMemcpyAsync(out.data(), tensor.handle, std::min(count, out.size()) * sizeof(float),
                        cudaMemcpyDeviceToHost, stream_.get()),
        "reading a tensor");
  check(cudaStreamSynchronize(stream_.get()), "reading a tensor");
}

// ---------------------------------------------------------------- the factory

std::string why_not(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();  // a refusal is no error of a later call
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (device < 0 || device >= count) return fmt::format("there is no device {}, only {}", device, count);
  return {};
}

std::unique_ptr<Backend> make_cuda_backend(int device, int threads) {
  if (const std::string reason = why_not(device); !reason.empty()) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the cuda backend cannot run here: {}", reason),
                "use --backend cpu, or install NVIDIA's driver; nvidia-smi lists the devices", "backend");
  }
  return std::make_unique<CudaBackend>(device, threads);
}

}  // namespace mlxs::cuda
