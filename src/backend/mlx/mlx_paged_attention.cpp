#include "backend/mlx/mlx_paged_attention.h"

#include <string>

#include "paged_attention_metal.h"

namespace mlxs::mlx_backend {
namespace {

constexpr int kSimdgroups = 8, kLanes = 32;
constexpr std::size_t kThreadgroupBytes = std::size_t{32} << 10;  // of every Apple GPU

}  // namespace

bool has_paged_attention(const AttentionSpec& spec) {
  const auto floats = static_cast<std::size_t>(kSimdgroups) * static_cast<std::size_t>(spec.value_dim + 2);
  return mx::metal::is_available() && floats * sizeof(float) <= kThreadgroupBytes;
}

mx::array paged_attention(const mx::array& queries, const mx::array& keys, const mx::array& values,
                          const mx::array& pages, const mx::array& lengths,
                          const std::optional<mx::array>& sinks, const AttentionSpec& spec) {
  static const mx::fast::CustomKernelFunction kernel = mx::fast::metal_kernel(
      "mlxs_paged_attention", {"queries", "keys", "values", "pages", "lengths", "sinks", "scale", "soft_cap"},
      {"out"}, std::string(metal::paged_attention_metal));
  const int rows = queries.shape(0);
  const std::vector<mx::array> out =
      kernel({queries, keys, values, pages, lengths, sinks ? *sinks : mx::zeros({1}), mx::array(spec.scale),
              mx::array(spec.soft_cap)},
             {{rows, spec.heads, spec.value_dim}}, {queries.dtype()},
             {rows * kSimdgroups * kLanes, spec.heads, 1}, {kSimdgroups * kLanes, 1, 1},
             {{"T", queries.dtype()},
              {"HEADS", spec.heads},
              {"KV_HEADS", spec.kv_heads},
              {"KEY_DIM", spec.key_dim},
              {"VALUE_DIM", spec.value_dim},
              {"PAGE_TOKENS", kPageTokens},
              {"SIMDGROUPS", kSimdgroups},
              {"WINDOW", spec.window},
              {"HAS_SOFT_CAP", spec.soft_cap > 0.0f},
              {"HAS_SINKS", sinks.has_value()}},
             std::nullopt, false, {});
  return out.front();
}

}  // namespace mlxs::mlx_backend
