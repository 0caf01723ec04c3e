// Which GPUs a list of CUDA architectures has kernels for.
#include "backend/cuda/architectures.h"

#include <gtest/gtest.h>

namespace mlxs::cuda {
namespace {

TEST(CudaArchitectures, RealOnesRunOnLaterGpusOfTheirGeneration) {
  EXPECT_TRUE(has_kernels_for("80-real", 8, 0));
  EXPECT_TRUE(has_kernels_for("80-real", 8, 6));
  EXPECT_TRUE(has_kernels_for("80-real,100-real", 10, 3));
  EXPECT_FALSE(has_kernels_for("86-real", 8, 0));
  EXPECT_FALSE(has_kernels_for("80-real", 7, 5));
  EXPECT_FALSE(has_kernels_for("80-real", 9, 0));
}

TEST(CudaArchitectures, ThoseOfOneGpuRunThereAlone) {
  EXPECT_TRUE(has_kernels_for("80-real,90a-real", 9, 0));
  EXPECT_FALSE(has_kernels_for("90a-real", 8, 9));
  EXPECT_FALSE(has_kernels_for("90a-real", 10, 0));
  EXPECT_FALSE(has_kernels_for("100a", 12, 0));
}

TEST(CudaArchitectures, TheDriverCompilesOthersForLaterGpus) {
  EXPECT_TRUE(has_kernels_for("90a-real,120", 12, 1));
  EXPECT_TRUE(has_kernels_for("80-virtual", 10, 0));
  EXPECT_FALSE(has_kernels_for("120", 10, 0));
}

TEST(CudaArchitectures, HopperNeedsItsOwnInstructions) {
  EXPECT_TRUE(has_kernels_for("80,90a-real", 9, 0));
  EXPECT_FALSE(has_kernels_for("90", 9, 0));
  EXPECT_FALSE(has_kernels_for("80-virtual", 9, 0));
  EXPECT_FALSE(has_kernels_for("80,89", 9, 0));
}

TEST(CudaArchitectures, FamiliesAndListsWithoutNumbers) {
  EXPECT_TRUE(has_kernels_for("100f-real", 10, 3));
  EXPECT_FALSE(has_kernels_for("100f", 12, 0));
  EXPECT_TRUE(has_kernels_for("native", 7, 5));
  EXPECT_TRUE(has_kernels_for("", 7, 5));
}

}  // namespace
}  // namespace mlxs::cuda
