// In place of cuBLASLt: the same products on the CPU, from fewer rows on.
#include "backend/cuda/blas.h"

#include <cstdint>

#include "backend/cpu/float_bits.h"
#include "blocks.h"

namespace mlxs::cuda {
namespace {

class Plain final : public Blas {
 public:
  std::string version() const override { return "emulated"; }
  int least_rows(bool) const override { return 100; }
  void multiply(cudaStream_t, const BlasProduct& p) override {
    emulated::queue([p] {
      auto* y = static_cast<float*>(p.y);
      auto* y_short = static_cast<std::uint16_t*>(p.y);
      for (int row = 0; row < p.rows; ++row) {
        const auto* x = static_cast<const std::uint16_t*>(p.x) +
                        static_cast<std::size_t>(row) * static_cast<std::size_t>(p.columns);
        for (int i = 0; i < p.outputs; ++i) {
          const auto* w = static_cast<const std::uint16_t*>(p.w) +
                          static_cast<std::size_t>(i) * static_cast<std::size_t>(p.columns);
          const std::size_t at = static_cast<std::size_t>(row) * static_cast<std::size_t>(p.y_columns) +
                                 static_cast<std::size_t>(i);
          float sum = p.added != nullptr ? p.added[at] : 0.0f;
          for (int k = 0; k < p.columns; ++k) sum += cpu::bf16_to_float(x[k]) * cpu::bf16_to_float(w[k]);
          if (p.y_bf16) {
            y_short[at] = cpu::float_to_bf16(sum);
          } else {
            y[at] = sum;
          }
        }
      }
    });
  }
};

}  // namespace

std::unique_ptr<Blas> Blas::load(std::string&) { return std::make_unique<Plain>(); }

}  // namespace mlxs::cuda
