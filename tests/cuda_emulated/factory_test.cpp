// What stands between a build with CUDA and the machine's GPU, as its user reads it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "backend/cuda/cuda_factory.h"
#include "backend/registry.h"
#include "blocks.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CudaFactory : public ::testing::Test {
 protected:
  void TearDown() override { emulated::set_machine({}); }
  static cuda::Obstacle on(const emulated::Machine& machine, int device = 0) {
    emulated::set_machine(machine);
    return cuda::obstacle(device);
  }
};

TEST_F(CudaFactory, NothingStandsInTheWayOfAGpuThatTheBuildKnows) {
  EXPECT_THAT(on({}).reason, IsEmpty());
  EXPECT_THAT(on({.devices = 2}, 1).reason, IsEmpty());
  EXPECT_THAT(on({.architecture = 86}).reason, IsEmpty());
}

TEST_F(CudaFactory, SaysWhatIsMissing) {
  EXPECT_EQ(on({.driver = 0}).reason, "no NVIDIA driver is installed");
  const cuda::Obstacle old = on({.driver = 12040});
  EXPECT_EQ(old.reason, "the NVIDIA driver knows CUDA 12.4, this build needs 13.0");
  EXPECT_EQ(old.remedy, "update the driver, or build with a toolkit of CUDA 12 (12.8 or newer)");
  EXPECT_THAT(on({.devices = 0}).remedy, HasSubstr("nvidia-smi"));
  EXPECT_EQ(on({.devices = 2}, 2).reason, "there is no device 2, only 2");
  EXPECT_EQ(on({}, -1).reason, "there is no device -1, only 1");
}

TEST_F(CudaFactory, SaysWhichGpuTheKernelsAreNotFor) {
  EXPECT_EQ(on({.architecture = 75}).reason,
            "device 0 (emulated) is sm_75, and the kernels need sm_80 or newer");
  const cuda::Obstacle other = on({.architecture = 110});
  EXPECT_EQ(
      other.reason,
      "device 0 (emulated) is sm_110, and this build has kernels for 80-real,89-real,90a-real,100-real,120");
  EXPECT_EQ(other.remedy, "build with -DMLXS_CUDA_ARCHITECTURES=110-real");
}

TEST_F(CudaFactory, AsksForTheOrderOfNvidiaSmi) {
  on({});
  EXPECT_STREQ(std::getenv("CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
}

TEST_F(CudaFactory, AutoTakesTheProcessorWhereThereIsNoGpuAndCudaIsRefused) {
  emulated::set_machine({.driver = 0});
  EXPECT_EQ(make_backend("auto")->device().name, "cpu");
  try {
    make_backend("cuda");
    ADD_FAILURE() << "made without a driver";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.full(), HasSubstr("the cuda backend cannot run here: no NVIDIA driver is installed"));
    EXPECT_THAT(error.full(), HasSubstr("install NVIDIA's driver, or use --backend cpu"));
  }
  emulated::set_machine({});
  EXPECT_EQ(make_backend("auto")->device().name, "cuda");
}

}  // namespace
}  // namespace mlxs
