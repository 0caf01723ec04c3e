#include "backend/cuda/blas.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include "backend/cuda/device_memory.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what NVIDIA advises for Hopper
constexpr int kChoices = 8;                                // kernels of which the fastest is taken
constexpr int kFullRows = 256;                             // full steps have whole such numbers of rows
constexpr float kWorthIt = 0.98f;                          // of the time of the library's own choice

// Of cublasLt.h, as it has been since CUDA 11.
using Handle = void*;
struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
constexpr int kCompute32F = 68, kReal32F = 0, kReal16BF = 14;                                  // types
constexpr int kTransposeA = 3, kTransposed = 1;                                                // of a product
constexpr int kMostWorkspace = 1, kAlignedW = 5, kAlignedX = 6, kAlignedC = 7, kAlignedY = 8;  // of a choice

struct Functions {
  int (*create)(Handle*);
  int (*destroy)(Handle);
  std::size_t (*version)();
  int (*make_product)(Handle*, int, int);
  int (*set_product)(Handle, int, const void*, std::size_t);
  int (*free_product)(Handle);
  int (*make_layout)(Handle*, int, std::uint64_t, std::uint64_t, std::int64_t);
  int (*free_layout)(Handle);
  int (*make_wishes)(Handle*);
  int (*set_wish)(Handle, int, const void*, std::size_t);
  int (*free_wishes)(Handle);
  int (*choose)(Handle, Handle, Handle, Handle, Handle, Handle, Handle, int, Heuristic*, int*);
  int (*multiply)(Handle, Handle, const void*, const void*, Handle, const void*, Handle, const void*,
                  const void*, Handle, void*, Handle, const Algorithm*, void*, std::size_t, cudaStream_t);
};

void check_blas(int status, std::string_view what) {
  if (status != 0) throw Error(ErrorCode::kInternal, fmt::format("cuBLASLt, {}: status {}", what, status));
}

std::optional<Functions> functions_of(void* library) {
  Functions f{};
  bool all = true;
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
    all = all && function != nullptr;
  };
  find(f.create, "cublasLtCreate");
  find(f.destroy, "cublasLtDestroy");
  find(f.version, "cublasLtGetVersion");
  find(f.make_product, "cublasLtMatmulDescCreate");
  find(f.set_product, "cublasLtMatmulDescSetAttribute");
  find(f.free_product, "cublasLtMatmulDescDestroy");
  find(f.make_layout, "cublasLtMatrixLayoutCreate");
  find(f.free_layout, "cublasLtMatrixLayoutDestroy");
  find(f.make_wishes, "cublasLtMatmulPreferenceCreate");
  find(f.set_wish, "cublasLtMatmulPreferenceSetAttribute");
  find(f.free_wishes, "cublasLtMatmulPreferenceDestroy");
  find(f.choose, "cublasLtMatmulAlgoGetHeuristic");
  find(f.multiply, "cublasLtMatmul");
  return all ? std::optional(f) : std::nullopt;
}

// What one shape of a product needs, made once.
struct Plan {
  Handle product{}, w{}, x{}, y{};
  Algorithm algorithm{};
};

class Library final : public Blas {
 public:
  // handle: of the library, which has begun; both are given back here.
  Library(void* library, const Functions& functions, Handle handle, DeviceBuffer workspace)
      : library_(library), f_(functions), handle_(handle), workspace_(std::move(workspace)) {}
  ~Library() override {
    for (auto& [shape, plan] : plans_) drop(plan);
    f_.destroy(handle_);
    dlclose(library_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  std::string version() const override {
    const std::size_t version = f_.version();
    return fmt::format("{}.{}", version / 10000, version / 100 % 100);
  }
  int least_rows(bool bf16) const override { return bf16 ? 512 : 1024; }

  void multiply(cudaStream_t stream, const BlasProduct& p) override {
    const Plan& plan = plan_of(stream, p);
    const float one = 1.0f, zero = 0.0f;
    check_blas(f_.multiply(handle_, plan.product, &one, p.w, plan.w, p.x, plan.x,
                           p.added != nullptr ? &one : &zero, p.added != nullptr ? p.added : p.y, plan.y, p.y,
                           plan.y, &plan.algorithm, workspace_.data(), kWorkspace, stream),
               "a product");
  }

 private:
  // The fastest of what the library proposes, which its first proposal often is not: 5 to 20 % behind for
  // short sums and few outputs. Of full steps' shapes alone, which come again and again.
  Algorithm fastest(cudaStream_t stream, const BlasProduct& p, const Plan& plan,
                    std::span<const Heuristic> choices) {
    const Algorithm& first = choices.front().algorithm;
    if (choices.size() == 1 || p.rows % kFullRows != 0) return first;
    DeviceBuffer y;  // the product's own may be what is added
    try {
      y = DeviceBuffer(static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(p.y_columns) *
                           (p.y_bf16 ? 2 : sizeof(float)),
                       "measuring products");
    } catch (const Error&) {
      return first;
    }
    check(cudaMemsetAsync(y.data(), 0, y.bytes(), stream), "measuring products");
    const float one = 1.0f, zero = 0.0f;
    float least = 0;
    const Algorithm* best = &first;
    for (const Heuristic& choice : choices) {
      const auto run = [&] {
        return f_.multiply(handle_, plan.product, &one, p.w, plan.w, p.x, plan.x,
                           p.added != nullptr ? &one : &zero, y.data(), plan.y, y.data(), plan.y,
                           &choice.algorithm, workspace_.data(), kWorkspace, stream);
      };
      if (run() != 0) continue;
      check(cudaEventRecord(began_.get(), stream), "measuring products");
      const auto once = run(), again = run();
      check(cudaEventRecord(ended_.get(), stream), "measuring products");
      check(cudaEventSynchronize(ended_.get()), "measuring products");
      const float took = elapsed_ms(began_.get(), ended_.get());
      if (once != 0 || again != 0 || took < 0) continue;
      if (least > 0 && took >= (best == &first ? kWorthIt : 1.0f) * least) continue;
      least = took;
      best = &choice.algorithm;
    }
    return *best;
  }

  void drop(Plan& plan) {
    for (Handle layout : {plan.w, plan.x, plan.y}) {
      if (layout != nullptr) f_.free_layout(layout);
    }
    if (plan.product != nullptr) f_.free_product(plan.product);
  }

  // The library's matrices are columns after columns: ours are theirs transposed.
  const Plan& plan_of(cudaStream_t stream, const BlasProduct& p) {
    const auto bits = reinterpret_cast<std::uintptr_t>(p.y) | reinterpret_cast<std::uintptr_t>(p.added) |
                      static_cast<std::uintptr_t>(p.y_columns) * (p.y_bf16 ? 2 : sizeof(float)) | 256;
    const auto y_aligned = static_cast<std::uint32_t>(bits & -bits);
    const auto shape =
        std::tuple(p.rows, p.outputs, p.columns, p.y_columns, y_aligned, p.y_bf16, p.added != nullptr);
    if (const auto found = plans_.find(shape); found != plans_.end()) return found->second;
    if (plans_.size() >= 1024) {
      for (auto& [old, plan] : plans_) drop(plan);
      plans_.clear();
    }
    Plan plan;
    Handle wishes{};
    try {
      check_blas(f_.make_product(&plan.product, kCompute32F, kReal32F), "a product");
      check_blas(f_.set_product(plan.product, kTransposeA, &kTransposed, sizeof(kTransposed)), "a product");
      const auto layout = [&](Handle& to, int type, int rows, int columns, int apart) {
        check_blas(f_.make_layout(&to, type, static_cast<std::uint64_t>(rows),
                                  static_cast<std::uint64_t>(columns), apart),
                   "a matrix");
      };
      layout(plan.w, kReal16BF, p.columns, p.outputs, p.columns);
      layout(plan.x, kReal16BF, p.columns, p.rows, p.columns);
      layout(plan.y, p.y_bf16 ? kReal16BF : kReal32F, p.outputs, p.rows, p.y_columns);
      check_blas(f_.make_wishes(&wishes), "a choice");
      check_blas(f_.set_wish(wishes, kMostWorkspace, &kWorkspace, sizeof(kWorkspace)), "a choice");
      const std::uint32_t aligned = 128;  // rows of 64 columns and more
      for (const int which : {kAlignedW, kAlignedX})
        check_blas(f_.set_wish(wishes, which, &aligned, sizeof(aligned)), "a choice");
      for (const int which : {kAlignedC, kAlignedY})
        check_blas(f_.set_wish(wishes, which, &y_aligned, sizeof(y_aligned)), "a choice");
      std::array<Heuristic, kChoices> found{};
      int count = 0;
      check_blas(f_.choose(handle_, plan.product, plan.w, plan.x, plan.y, plan.y, wishes, kChoices,
                           found.data(), &count),
                 "a choice");
      if (count == 0) throw Error(ErrorCode::kInternal, "cuBLASLt has no kernel for a product");
      plan.algorithm = fastest(stream, p, plan, std::span(found).first(static_cast<std::size_t>(count)));
    } catch (...) {
      if (wishes != nullptr) f_.free_wishes(wishes);
      drop(plan);
      throw;
    }
    f_.free_wishes(wishes);
    return plans_.emplace(shape, plan).first->second;
  }

  void* library_;
  Functions f_;
  Handle handle_;
  DeviceBuffer workspace_;
  std::map<std::tuple<int, int, int, int, std::uint32_t, bool, bool>, Plan> plans_;
  Event began_, ended_;
};

}  // namespace

std::unique_ptr<Blas> Blas::load(std::string& obstacle) {
  obstacle = "not found";
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    const std::optional<Functions> functions = functions_of(library);
    Handle handle{};
    if (!functions) {
      obstacle = fmt::format("{} lacks functions", name);
    } else if (const int status = functions->create(&handle); status != 0) {
      obstacle = fmt::format("{} does not start, status {}", name, status);
    } else {
      try {
        return std::make_unique<Library>(library, *functions, handle, DeviceBuffer(kWorkspace, "cuBLASLt"));
      } catch (const Error& error) {
        obstacle = error.what();
      }
      functions->destroy(handle);
    }
    dlclose(library);
  }
  return nullptr;
}

}  // namespace mlxs::cuda
