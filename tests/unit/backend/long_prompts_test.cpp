// Prompts longer than what attention's kernels take at once, of rows and of keys: chunks that begin and end
// anywhere, several sequences and single rows in one step, on every backend against the CPU's. The bounds are
// those of conformance_test.cpp.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backend/registry.h"
#include "backends_here.h"
#include "conformance_model.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using test::AttentionCase;
using test::distance;
using test::Steps;
using test::TinyBlock;

constexpr double kBound = 1e-2;

// Named after the heads that share a KV head.
const AttentionCase kCases[] = {
    {.name = "one", .heads = 2, .kv_heads = 2},
    {.name = "two", .heads = 2, .kv_heads = 1, .key_dim = 128, .value_dim = 128},
    {.name = "four", .heads = 4, .kv_heads = 1, .window = 100},
    {.name = "eight", .heads = 8, .kv_heads = 1, .sinks = true},
    {.name = "three",
     .heads = 3,
     .kv_heads = 1,
     .key_dim = 128,
     .value_dim = 128,
     .window = 33,
     .soft_cap = 20.0f},
    {.name = "two of 256",
     .heads = 2,
     .kv_heads = 1,
     .key_dim = 256,
     .value_dim = 256,
     .norms = true,
     .window = 70},
    {.name = "encoder", .heads = 2, .kv_heads = 1, .causal = false},
};

class LongPrompts : public testing::TestWithParam<std::string> {
 protected:
  void expect_same(DType type, double bound) {
    for (const AttentionCase& c : kCases) {
      TinyBlock reference(*cpu_, c, type), tried(*other_, c, type);
      Steps steps(3, TinyBlock::kVocabulary, 20);
      for (const std::vector<int>& counts :
           {std::vector<int>{150, 37, 0}, {1, 91, 1}, {133, 0, 129}, {1, 1, 64}}) {
        const Steps::Step step = steps.next(counts);
        EXPECT_LT(distance(tried.run(step), reference.run(step)), bound)
            << c.name << ", rows " << counts[0] << " " << counts[1] << " " << counts[2];
        if (!c.causal) break;  // an encoder has one step
      }
    }
  }
  std::unique_ptr<Backend> cpu_ = make_backend("cpu", {.threads = 2});
  std::unique_ptr<Backend> other_ = make_backend(GetParam());
};

TEST_P(LongPrompts, InChunks) { expect_same(DType::kBF16, kBound); }

TEST_P(LongPrompts, InChunksOverCodes) {
  try {
    expect_same(DType::kI8, 2 * kBound);
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::kInvalidArgument);
    GTEST_SKIP() << error.full();
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LongPrompts);
INSTANTIATE_TEST_SUITE_P(Backends, LongPrompts, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
