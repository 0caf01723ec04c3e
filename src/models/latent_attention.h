// Multi-head latent attention (DeepSeek V2, Liu et al. 2024): a token leaves one latent vector and one
// rotated key for all heads in the cache. The heads' own key and value projections are applied to the queries
// and to the results instead, so that attention itself runs over the latents, as over one KV head. Weights of
// one layer and their part of the forward pass; lives and fails as the model that owns it.
#pragma once

#include <vector>

#include "backend/ops.h"
#include "models/weight_loader.h"

namespace mlxs {

struct LatentSpec {
  std::int32_t query_rank = 0;  // 0: queries are projected in one step
  std::int32_t rank = 0;        // of the latents
  std::int32_t plain_dim = 0;   // of a head's keys: not rotated
  std::int32_t rotated_dim = 0;
  std::int32_t value_dim = 0;

  // What attention and the cache see: heads of one key, rotated part first, and one value, the latent.
  std::int32_t key_dim() const { return rotated_dim + rank; }
};

class LatentAttention {
 public:
  LatentAttention(WeightLoader& load, int layer, std::int32_t heads, std::int32_t hidden,
                  const LatentSpec& spec);
  // x: [rows, hidden] → [rows, heads · value_dim]. attention: of key_dim(), rank and one KV head.
  Tensor mix(Backend& backend, Tensor x, const NormSpec& input_norm, const AttentionSpec& attention) const;

 private:
  Tensor queries(Backend& backend, Tensor x, const NormSpec& input_norm) const;

  LatentSpec spec_;
  std::int32_t heads_;
  WeightPtr query_down_, query_norm_;  // [query_rank, hidden], [query_rank]
  WeightPtr query_;                    // [heads · (plain_dim + rotated_dim), query_rank or hidden]
  WeightPtr latent_, latent_norm_;     // [rank, hidden], [rank]
  WeightPtr rotated_key_;              // [rotated_dim, hidden]
  std::vector<WeightPtr> to_latent_;   // a head's keys, transposed: [rank, plain_dim]
  std::vector<WeightPtr> to_value_;    // [value_dim, rank]
};

}  // namespace mlxs
