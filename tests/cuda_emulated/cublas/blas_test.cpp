// Products by cuBLASLt, over a library of the test's in its place: what is asked of it, what is measured,
// what stands in the way.
#include "backend/cuda/blas.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/float_bits.h"
#include "blocks.h"
#include "fake_cublas.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

using ::testing::HasSubstr;

class CublasLt : public ::testing::Test {
 protected:
  void SetUp() override {
    library_ = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
    const auto find = reinterpret_cast<FakeCublas* (*)()>(dlsym(library_, "fake_cublas"));
    ASSERT_NE(find, nullptr) << "another cuBLASLt was found";
    fake_ = find();
    *fake_ = {};
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    emulated::set_elapsed([this] { return fake_->last < 0 ? 0.0f : fake_->ms[fake_->last]; });
  }
  void TearDown() override {
    emulated::set_elapsed({});
    if (fake_ != nullptr) {
      EXPECT_EQ(fake_->handles, 0) << "freed";
    }
    if (library_ != nullptr) dlclose(library_);
  }

  // The product of random matrices, and what it should be within bf16's rounding.
  void expect_product(Blas& blas, int rows, int outputs, int columns, bool added, bool bf16) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> values(-1, 1);
    const auto shorts = [&](int count) {
      std::vector<std::uint16_t> made(static_cast<std::size_t>(count));
      for (auto& one : made) one = cpu::float_to_bf16(values(random));
      return made;
    };
    const int apart = outputs + 8;  // as gates lie beside ups
    const auto w = shorts(outputs * columns), x = shorts(rows * columns);
    std::vector<float> start(static_cast<std::size_t>(rows * apart), 7.0f), y = start;
    std::vector<std::uint16_t> y_short(y.size(), 0x4100);
    blas.multiply(stream_, {.w = w.data(),
                            .x = x.data(),
                            .rows = rows,
                            .outputs = outputs,
                            .columns = columns,
                            .added = added ? start.data() : nullptr,
                            .y = bf16 ? static_cast<void*>(y_short.data()) : y.data(),
                            .y_columns = apart,
                            .y_bf16 = bf16});
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < apart; ++i) {
        const auto at = static_cast<std::size_t>(row * apart + i);
        const float got = bf16 ? cpu::bf16_to_float(y_short[at]) : y[at];
        double sum = added ? 7 : 0;
        if (i >= outputs) {
          ASSERT_EQ(got, bf16 ? 8.0f : 7.0f) << "beside the product";
          continue;
        }
        for (int k = 0; k < columns; ++k)
          sum += cpu::bf16_to_float(w[static_cast<std::size_t>(i * columns + k)]) *
                 cpu::bf16_to_float(x[static_cast<std::size_t>(row * columns + k)]);
        ASSERT_NEAR(got, sum, bf16 ? std::abs(sum) / 128 + 1e-4 : 1e-4) << row << ' ' << i;
      }
    }
  }

  void* library_ = nullptr;
  cudaStream_t stream_{};
  FakeCublas* fake_ = nullptr;
  std::string obstacle_;
};

TEST_F(CublasLt, MultipliesRowsWithRowsOfWeights) {
  const auto blas = Blas::load(obstacle_);
  ASSERT_NE(blas, nullptr) << obstacle_;
  EXPECT_EQ(blas->version(), "13.0");
  expect_product(*blas, 5, 24, 64, false, false);
  expect_product(*blas, 5, 24, 64, true, false);
  expect_product(*blas, 3, 40, 128, false, true);
}

TEST_F(CublasLt, TakesTheFastestForTheShapesOfFullSteps) {
  const auto blas = Blas::load(obstacle_);
  ASSERT_NE(blas, nullptr) << obstacle_;
  std::ranges::copy(std::array{3.0f, 2.0f, 1.0f}, fake_->ms);
  expect_product(*blas, 256, 8, 8, true, false);
  EXPECT_EQ(fake_->last, 2);
  const int measured = fake_->products;
  expect_product(*blas, 256, 8, 8, true, false);
  EXPECT_EQ(fake_->products, measured + 1) << "measured once";
  expect_product(*blas, 255, 8, 8, true, false);
  EXPECT_EQ(fake_->last, 0) << "the library's choice";
}

TEST_F(CublasLt, StaysWithTheLibrarysChoiceForLittle) {
  const auto blas = Blas::load(obstacle_);
  ASSERT_NE(blas, nullptr) << obstacle_;
  std::ranges::copy(std::array{1.0f, 0.99f, 1.1f}, fake_->ms);
  expect_product(*blas, 256, 8, 8, false, false);
  EXPECT_EQ(fake_->last, 0);
}

TEST_F(CublasLt, LeavesOutProposalsThatFail) {
  const auto blas = Blas::load(obstacle_);
  ASSERT_NE(blas, nullptr) << obstacle_;
  std::ranges::copy(std::array{3.0f, 2.0f, 1.0f}, fake_->ms);
  fake_->failing = 2;
  expect_product(*blas, 512, 8, 8, false, false);
  EXPECT_EQ(fake_->last, 1);
}

TEST_F(CublasLt, HasNoKernelForAProduct) {
  const auto blas = Blas::load(obstacle_);
  ASSERT_NE(blas, nullptr) << obstacle_;
  fake_->proposals = 0;
  EXPECT_THROW(expect_product(*blas, 5, 24, 64, false, false), Error);
}

TEST_F(CublasLt, IsDoneWithoutWhereItDoesNotStart) {
  fake_->start_status = 1;
  EXPECT_EQ(Blas::load(obstacle_), nullptr);
  EXPECT_THAT(obstacle_, HasSubstr("does not start, status 1"));
}

TEST_F(CublasLt, IsDoneWithoutWhereItsMemoryIsMissing) {
  emulated::set_device_memory(1 << 20);
  EXPECT_EQ(Blas::load(obstacle_), nullptr);
  EXPECT_THAT(obstacle_, HasSubstr("cuBLASLt"));
  emulated::set_device_memory(std::size_t{1} << 30);
}

}  // namespace
}  // namespace mlxs::cuda
