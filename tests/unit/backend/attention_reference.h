// Attention as the op set defines it, in f64 and as plainly as possible, over K and V rounded as the store
// keeps them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/attention.h"

namespace mlxs::cpu::test {

struct HeadsCase {
  int heads = 4, kv_heads = 2, key_dim = 64, value_dim = 64;
  int rope_dims = -1;  // -1: key_dim
  bool interleaved = false;
  bool qk_norm = false;
  bool unit_offset = false;
  bool causal = true;
  int window = 0;
  float soft_cap = 0.0f;
  bool sinks = false;
  float magnitude = 1.0f;
  DType type = DType::kBF16;

  int rotated() const { return rope_dims < 0 ? key_dim : rope_dims; }
  int columns() const { return heads * key_dim + kv_heads * (key_dim + value_dim); }
};

inline double round_bf16(double value) {
  const float narrow = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &narrow, 4);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline void round_stored(DType type, std::vector<double>& head) {
  if (type == DType::kBF16) {
    for (double& x : head) x = round_bf16(x);
    return;
  }
  double largest = 0;
  for (double x : head) largest = std::max(largest, std::abs(x));
  const double scale = largest / 127;
  for (double& x : head) x = scale > 0 ? std::nearbyint(x / scale) * scale : 0;
}

// The weights of a layer: drawn once a case.
struct LayerWeights {
  std::vector<float> query_gain, key_gain, sinks, frequencies;

  explicit LayerWeights(const HeadsCase& c) {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> around(0.5f, 1.5f);
    for (int d = 0; d < c.key_dim; ++d) query_gain.push_back(around(random));
    for (int d = 0; d < c.key_dim; ++d) key_gain.push_back(around(random));
    for (int h = 0; h < c.heads; ++h) sinks.push_back(4.0f * around(random) - 4.0f);
    for (int i = 0; i < c.rotated() / 2; ++i) {
      frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / c.rotated())));
    }
  }
  AttentionSpec spec(const HeadsCase& c) const {
    AttentionSpec spec;
    spec.layer = 1;
    spec.heads = c.heads;
    spec.kv_heads = c.kv_heads;
    spec.key_dim = c.key_dim;
    spec.value_dim = c.value_dim;
    spec.scale = 1.0f / std::sqrt(static_cast<float>(c.key_dim));
    spec.rope = {c.rotated(), c.interleaved, frequencies, c.magnitude};
    spec.causal = c.causal;
    spec.window = c.window;
    spec.soft_cap = c.soft_cap;
    return spec;
  }
  AttentionVectors vectors(const HeadsCase& c) const {
    AttentionVectors vectors;
    if (c.qk_norm) {
      vectors.query_norm = {query_gain.data(), 1e-6f, c.unit_offset};
      vectors.key_norm = {key_gain.data(), 1e-6f, c.unit_offset};
    }
    if (c.sinks) vectors.sinks = sinks.data();
    return vectors;
  }
};

// A sequence's qkv rows and what the reference makes of them. Token t of content c is the same in every
// sequence.
class ReferenceSequence {
 public:
  ReferenceSequence(const HeadsCase& c, const LayerWeights& weights) : case_(c), weights_(weights) {}

  void push(std::uint64_t content, float factor = 1.0f) {
    const int token = static_cast<int>(rows_.size());
    std::mt19937_64 random(content * 1000003 + static_cast<std::uint64_t>(token));
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<std::size_t>(case_.columns()));
    for (float& x : row) x = normal(random) * factor;
    for (int i = 0; i < case_.heads * case_.key_dim; ++i)
      row[static_cast<std::size_t>(i)] *= 2.0f;  // peaked softmax
    push_row(std::move(row));
  }
  void push_row(std::vector<float> row) {
    const int token = static_cast<int>(rows_.size());
    for (int h = 0; h < case_.kv_heads; ++h) {
      std::vector<double> key = transformed(&row[static_cast<std::size_t>((case_.heads + h) * case_.key_dim)],
                                            weights_.key_gain, token);
      const float* v = &row[static_cast<std::size_t>((case_.heads + case_.kv_heads) * case_.key_dim +
                                                     h * case_.value_dim)];
      std::vector<double> value(v, v + case_.value_dim);
      round_stored(case_.type, key);
      round_stored(case_.type, value);
      keys_.push_back(std::move(key));
      values_.push_back(std::move(value));
    }
    rows_.push_back(std::move(row));
  }
  const std::vector<float>& row(int token) const { return rows_[static_cast<std::size_t>(token)]; }
  int tokens() const { return static_cast<int>(rows_.size()); }

  // [heads · value_dim] of one token, when the sequence holds `end` tokens.
  std::vector<double> attend(int token, int end) const {
    std::vector<double> out;
    const int low = case_.window > 0 ? std::max(0, token + 1 - case_.window) : 0;
    const int high = case_.causal ? token + 1 : end;
    for (int h = 0; h < case_.heads; ++h) {
      const int kv_head = h / (case_.heads / case_.kv_heads);
      const std::vector<double> query =
          transformed(&rows_[static_cast<std::size_t>(token)][static_cast<std::size_t>(h * case_.key_dim)],
                      weights_.query_gain, token);
      std::vector<double> scores;
      double max = case_.sinks ? static_cast<double>(weights_.sinks[static_cast<std::size_t>(h)]) : -1e300;
      for (int t = low; t < high; ++t) {
        const std::vector<double>& key = keys_[static_cast<std::size_t>(t * case_.kv_heads + kv_head)];
        double s = 0;
        for (std::size_t d = 0; d < key.size(); ++d) s += query[d] * key[d];
        s /= std::sqrt(static_cast<double>(case_.key_dim));
        const auto cap = static_cast<double>(case_.soft_cap);
        if (cap > 0) s = cap * std::tanh(s / cap);
        scores.push_back(s);
        max = std::max(max, s);
      }
      double sum =
          case_.sinks ? std::exp(static_cast<double>(weights_.sinks[static_cast<std::size_t>(h)]) - max) : 0;
      std::vector<double> head(static_cast<std::size_t>(case_.value_dim));
      for (int t = low; t < high; ++t) {
        const double p = std::exp(scores[static_cast<std::size_t>(t - low)] - max);
        sum += p;
        const std::vector<double>& value = values_[static_cast<std::size_t>(t * case_.kv_heads + kv_head)];
        for (std::size_t d = 0; d < head.size(); ++d) head[d] += p * value[d];
      }
      for (double x : head) out.push_back(x / sum);
    }
    return out;
  }

 private:
  std::vector<double> transformed(const float* in, const std::vector<float>& gain, int position) const {
    std::vector<double> x(in, in + case_.key_dim);
    if (case_.qk_norm) {
      double squares = 0;
      for (double v : x) squares += v * v;
      const double scale = 1 / std::sqrt(squares / case_.key_dim + 1e-6);
      for (std::size_t d = 0; d < x.size(); ++d)
        x[d] *= scale * (static_cast<double>(gain[d]) + (case_.unit_offset ? 1 : 0));
    }
    const int half = case_.rotated() / 2;
    for (int i = 0; i < half; ++i) {
      const double angle = position * static_cast<double>(weights_.frequencies[static_cast<std::size_t>(i)]);
      const double cos = std::cos(angle) * static_cast<double>(case_.magnitude);
      const double sin = std::sin(angle) * static_cast<double>(case_.magnitude);
      const auto a = static_cast<std::size_t>(case_.interleaved ? 2 * i : i);
      const auto b = static_cast<std::size_t>(case_.interleaved ? 2 * i + 1 : i + half);
      const double low = x[a], high = x[b];
      x[a] = low * cos - high * sin;
      x[b] = low * sin + high * cos;
    }
    return x;
  }

  HeadsCase case_;
  const LayerWeights& weights_;
  std::vector<std::vector<float>> rows_;
  std::vector<std::vector<double>> keys_, values_;  // [token · kv_heads + head]
};

}  // namespace mlxs::cpu::test
