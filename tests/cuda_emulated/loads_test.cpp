// Loads that fail, on a GPU with little memory: they end with what went wrong, and what comes next works.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <vector>

#include "backend/registry.h"
#include "base/file_ranges.h"
#include "blocks.h"
#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

constexpr std::size_t kMemory = std::size_t{48} << 20;

class CudaLoads : public ::testing::Test {
 protected:
  void SetUp() override { emulated::set_device_memory(kMemory); }
  void TearDown() override {
    EXPECT_EQ(emulated::device_memory_taken(), 0u);
    emulated::set_device_memory(std::size_t{1} << 30);
  }
  test::TempDir dir_;
};

// Weights come from their file beside what the engine does: what goes wrong ends the load, and the next one
// works.
TEST_F(CudaLoads, AFileThatCannotBeReadEndsTheLoad) {
  const auto backend = make_backend("cuda", {.threads = 2});
  const std::vector<std::byte> bytes(std::size_t{64} * 64 * sizeof(float));
  const RawWeight raw{.name = "w", .type = DType::kF32, .rows = 64, .columns = 64, .bytes = bytes};
  const KvSpec kv{.layers = 1, .kv_heads = 1, .key_dim = 16, .value_dim = 16, .num_pages = 2};
  {
    const auto path = dir_.path() / "short";
    std::ofstream(path) << "less than the weight has";
    const FileRange range(bytes, ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const WeightPtr weight = backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
    try {
      (void)backend->make_kv(kv);
      FAIL() << "loaded";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
    }
  }
  const WeightPtr weight = backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
  EXPECT_NE(backend->make_kv(kv), nullptr);
}

// What was wrong with weights that nobody wants any more is not the next model's.
TEST_F(CudaLoads, ALoadThatWasGivenUpIsForgotten) {
  const auto backend = make_backend("cuda", {.threads = 2});
  const std::vector<std::byte> bytes(std::size_t{64} * 64 * sizeof(float)), others(bytes.size());
  const RawWeight raw{.name = "w", .type = DType::kF32, .rows = 64, .columns = 64, .bytes = bytes},
      other{.name = "other", .type = DType::kF32, .rows = 64, .columns = 64, .bytes = others};
  const auto path = dir_.path() / "short";
  std::ofstream(path) << "less than the weight has";
  {
    const FileRange range(bytes, ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    (void)backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
  }
  const WeightPtr weight = backend->prepare({&other, 1}, WeightUse::kMatrix, nullptr);
  EXPECT_NE(backend->make_kv({.layers = 1, .kv_heads = 1, .key_dim = 16, .value_dim = 16, .num_pages = 2}),
            nullptr);
}

// Nor does a load hang for which there is no memory beside the weights.
TEST_F(CudaLoads, AnUploadThatFindsNoMemoryEndsTheLoad) {
  const auto backend = make_backend("cuda", {.threads = 1});
  const std::vector<std::byte> bytes(std::size_t{64} * 64 * sizeof(float));
  const RawWeight raw{.name = "w", .type = DType::kF32, .rows = 64, .columns = 64, .bytes = bytes};
  emulated::set_device_memory(emulated::device_memory_taken() + (std::size_t{2} << 20));
  try {
    (void)backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
    FAIL() << "there is room for the weight alone";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
  }
  emulated::set_device_memory(kMemory);
  const WeightPtr weight = backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
  EXPECT_NE(backend->make_kv({.layers = 1, .kv_heads = 1, .key_dim = 16, .value_dim = 16, .num_pages = 2}),
            nullptr);
}

}  // namespace
}  // namespace mlxs
