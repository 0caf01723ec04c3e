// Attention of decode rows straight from the KV pages, by a Metal kernel of our own: nothing is gathered
// first. Only where MLX runs on Metal; elsewhere mlx_attention.cpp's portable form does the same. Engine
// thread only.
#pragma once

#include <mlx/mlx.h>

#include <optional>

#include "backend/ops.h"

namespace mlxs::mlx_backend {

namespace mx = mlx::core;

// Metal is there, and a threadgroup's memory holds what these heads need.
bool has_paged_attention(const AttentionSpec& spec);

// queries: [rows, heads, key_dim]; keys, values: as MlxKvStore keeps them; pages: int32 [rows, most pages],
// the rest of a row is not read; lengths: int32 [rows], tokens that the row sees, its own included; sinks:
// f32 [heads]. → [rows, heads, value_dim]
mx::array paged_attention(const mx::array& queries, const mx::array& keys, const mx::array& values,
                          const mx::array& pages, const mx::array& lengths,
                          const std::optional<mx::array>& sinks, const AttentionSpec& spec);

}  // namespace mlxs::mlx_backend
