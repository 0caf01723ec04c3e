// A block of an encoder as bert.cpp writes it, texts of several lengths and kinds in one step: every other
// backend's hidden states against the CPU's.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "backend/encoder_ops.h"
#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "conformance_model.h"

namespace mlxs {
namespace {

using test::distance;
using test::random_floats;
using test::weight_of;

struct Shape {
  const char* name;
  int hidden, heads, inner;
  std::vector<int> lengths;
};

class EncoderBlock {
 public:
  static constexpr int kVocabulary = 40, kContext = 64;

  EncoderBlock(Backend& backend, const Shape& shape) : backend_(backend), shape_(shape) {
    unsigned seed = 1;
    const auto matrix = [&](int rows, int columns, float spread, WeightUse use) {
      const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
      return weight_of(backend, random_floats(count, spread, seed++), rows, use);
    };
    const auto product = [&](int rows, int columns) {
      return matrix(rows, columns, 1.0f / std::sqrt(static_cast<float>(columns)), WeightUse::kMatrix);
    };
    const auto vector = [&](int columns, float around) {
      return weight_of(backend, random_floats(static_cast<std::size_t>(columns), 0.2f, seed++, around), 1,
                       WeightUse::kVector);
    };
    const int h = shape.hidden;
    embedding_ = matrix(kVocabulary, h, 1.0f, WeightUse::kEmbedding);
    positions_ = matrix(2 * kContext, h, 0.5f, WeightUse::kEmbedding);  // of two kinds of tokens
    gain_ = vector(h, 1.0f), bias_ = vector(h, 0.0f);
    qkv_ = product(3 * h, h), qkv_bias_ = vector(3 * h, 0.0f);
    out_ = product(h, h), out_bias_ = vector(h, 0.0f);
    up_ = product(shape.inner, h), up_bias_ = vector(shape.inner, 0.0f);
    down_ = product(h, shape.inner), down_bias_ = vector(h, 0.0f);
    const int head = h / shape.heads;
    kv_ = backend.make_kv({.layers = 1,
                           .kv_heads = shape.heads,
                           .key_dim = head,
                           .value_dim = head,
                           .num_pages = 64,
                           .type = DType::kBF16});
  }

  std::vector<float> run() {
    test::Steps steps(static_cast<int>(shape_.lengths.size()), kVocabulary);
    const test::Steps::Step step = steps.next(shape_.lengths);
    std::vector<std::int32_t> rows(step.positions);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] += i % 3 == 0 ? kContext : 0;
    const int head = shape_.hidden / shape_.heads;
    Backend& b = backend_;
    b.begin_step({step.tokens, step.positions, step.spans, {}, kv_.get()});
    auto& ops = dynamic_cast<EncoderOps&>(b);
    ops.set_position_rows(rows);
    Tensor x = normed(ops.add_positions(b.embed(*embedding_), *positions_));
    for (int layer = 0; layer < 2; ++layer) {
      const Tensor qkv = b.linear(x, *qkv_, {.bias = qkv_bias_.get(), .for_attention = true});
      const Tensor mixed = b.attention(qkv, {.layer = 0,
                                             .heads = shape_.heads,
                                             .kv_heads = shape_.heads,
                                             .key_dim = head,
                                             .value_dim = head,
                                             .scale = 1.0f / std::sqrt(static_cast<float>(head)),
                                             .causal = false});
      b.release(qkv);
      x = normed(b.linear(mixed, *out_, {.bias = out_bias_.get(), .residual = x}));
      b.release(mixed);
      const Tensor inner = b.linear(x, *up_, {.bias = up_bias_.get(), .activation = Activation::kGelu});
      x = normed(b.linear(inner, *down_, {.bias = down_bias_.get(), .residual = x}));
      b.release(inner);
    }
    b.end_step();
    std::vector<float> hidden(static_cast<std::size_t>(x.rows) * static_cast<std::size_t>(x.columns));
    b.read(x, hidden);
    return hidden;
  }

 private:
  Tensor normed(Tensor x) {
    const Tensor y = backend_.norm(
        x, {.kind = NormSpec::Kind::kLayer, .gain = gain_.get(), .bias = bias_.get(), .epsilon = 1e-12f});
    backend_.release(x);
    return y;
  }

  Backend& backend_;
  Shape shape_;
  WeightPtr embedding_, positions_, gain_, bias_, qkv_, qkv_bias_, out_, out_bias_, up_, up_bias_, down_,
      down_bias_;
  std::unique_ptr<KvStore> kv_;
};

class Encoders : public testing::TestWithParam<std::string> {};

TEST_P(Encoders, TextsOfAStepSeeThemselvesAlone) {
  const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}), other = make_backend(GetParam());
  ASSERT_NE(dynamic_cast<EncoderOps*>(other.get()), nullptr);
  // MiniLM's heads of 32, BERT's of 64; one text, one token, and many of both.
  for (const Shape& shape : {Shape{"few", 96, 3, 160, {1}}, Shape{"mini", 96, 3, 160, {17, 1, 40, 5}},
                             Shape{"base", 128, 2, 256, {33, 16, 2}}}) {
    EncoderBlock expected(*cpu, shape), tried(*other, shape);
    const std::vector<float> once = tried.run();
    EXPECT_LT(distance(once, expected.run()), 2e-2) << shape.name;
    EXPECT_EQ(tried.run(), once) << shape.name << ": another step leaves nothing behind";
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Encoders);
INSTANTIATE_TEST_SUITE_P(Backends, Encoders, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
