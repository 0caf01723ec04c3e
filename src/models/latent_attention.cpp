#include "models/latent_attention.h"

#include <fmt/format.h>

namespace mlxs {
namespace {

constexpr float kLatentEpsilon = 1e-6f;  // whatever the other norms have

}  // namespace

LatentAttention::LatentAttention(WeightLoader& load, int layer, std::int32_t heads, std::int32_t hidden,
                                 const LatentSpec& spec)
    : spec_(spec), heads_(heads) {
  const auto name = [&](std::string_view part) { return fmt::format("blk.{}.{}.weight", layer, part); };
  const std::int64_t columns = heads * (spec.plain_dim + spec.rotated_dim);
  if (spec.query_rank > 0) {
    query_down_ = load.matrix(name("attn_q_a"), spec.query_rank, hidden);
    query_norm_ = load.vector(name("attn_q_a_norm"), spec.query_rank);
    query_ = load.matrix(name("attn_q_b"), columns, spec.query_rank);
  } else {
    query_ = load.matrix(name("attn_q"), columns, hidden);
  }
  const RawWeight down = load.whole(name("attn_kv_a_mqa"), {spec.rank + spec.rotated_dim, hidden});
  latent_ = load.slice(down, 0, spec.rank);
  rotated_key_ = load.slice(down, spec.rank, spec.rotated_dim);
  latent_norm_ = load.vector(name("attn_kv_a_norm"), spec.rank);
  if (load.has(name("attn_k_b"))) {  // as mlx-lm and newer GGUF files split them
    const RawWeight keys = load.whole(name("attn_k_b"), {heads, spec.rank, spec.plain_dim});
    const RawWeight values = load.whole(name("attn_v_b"), {heads, spec.value_dim, spec.rank});
    for (std::int64_t head = 0; head < heads; ++head) {
      to_latent_.push_back(load.slice(keys, head * spec.rank, spec.rank));
      to_value_.push_back(load.slice(values, head * spec.value_dim, spec.value_dim));
    }
    return;
  }
  const std::int64_t rows = spec.plain_dim + spec.value_dim;
  const RawWeight both = load.whole(name("attn_kv_b"), {heads * rows, spec.rank});
  for (std::int64_t head = 0; head < heads; ++head) {
    to_latent_.push_back(load.transposed_slice(both, head * rows, spec.plain_dim));
    to_value_.push_back(load.slice(both, head * rows + spec.plain_dim, spec.value_dim));
  }
}

Tensor LatentAttention::queries(Backend& backend, Tensor x, const NormSpec& input_norm) const {
  if (!query_down_) return backend.linear(x, *query_, {.norm = &input_norm});
  const NormSpec norm{.gain = query_norm_.get(), .epsilon = kLatentEpsilon};
  const Tensor low = backend.linear(x, *query_down_, {.norm = &input_norm});
  const Tensor q = backend.linear(low, *query_, {.norm = &norm});
  backend.release(low);
  return q;
}

Tensor LatentAttention::mix(Backend& backend, Tensor x, const NormSpec& input_norm,
                            const AttentionSpec& attention) const {
  const std::int32_t plain = spec_.plain_dim, rotated = spec_.rotated_dim, rank = spec_.rank,
                     key = spec_.key_dim();
  const Tensor q = this->queries(backend, x, input_norm);
  const Tensor low = backend.linear(x, *latent_, {.norm = &input_norm});
  const Tensor latent = backend.norm(low, {.gain = latent_norm_.get(), .epsilon = kLatentEpsilon});
  const Tensor rotated_key = backend.linear(x, *rotated_key_, {.norm = &input_norm});
  backend.release(low);

  const Tensor queries = backend.linear_heads(q, 0, plain + rotated, to_latent_);
  // A row: (rotated, latent) of each head's query; the key, alike; the latent again, as the value.
  const ColumnRuns parts[] = {
      {.from = q,
       .first = plain,
       .columns = rotated,
       .runs = heads_,
       .step = plain + rotated,
       .to_step = key},
      {.from = queries, .columns = rank, .to = rotated, .runs = heads_, .step = rank, .to_step = key},
      {.from = rotated_key, .columns = rotated, .to = heads_ * key},
      {.from = latent, .columns = rank, .to = heads_ * key + rotated},
      {.from = latent, .columns = rank, .to = (heads_ + 1) * key}};
  const Tensor qkv = backend.assemble(parts, (heads_ + 1) * key + rank);
  for (const Tensor used : {q, queries, rotated_key, latent}) backend.release(used);
  const Tensor latents = backend.attention(qkv, attention);
  backend.release(qkv);
  const Tensor y = backend.linear_heads(latents, 0, rank, to_value_);
  backend.release(latents);
  return y;
}

}  // namespace mlxs
