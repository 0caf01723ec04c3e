#include "formats/hf_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <vector>

namespace mlxs {
namespace {

constexpr Rename kShared[] = {
    {"embed_tokens", "token_embd"},
    {"norm", "output_norm"},
    {"lm_head", "output"},
    {"layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {"layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {"layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
    {"layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
    {"layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
    {"layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"},
    {"layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
    {"layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
    {"layers.{}.self_attn.sinks", "blk.{}.attn_sinks"},
    {"layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {"layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {"layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up"},
    {"layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
    // Multi-head latent attention.
    {"layers.{}.self_attn.q_a_proj", "blk.{}.attn_q_a"},
    {"layers.{}.self_attn.q_a_layernorm", "blk.{}.attn_q_a_norm"},
    {"layers.{}.self_attn.q_b_proj", "blk.{}.attn_q_b"},
    {"layers.{}.self_attn.kv_a_proj_with_mqa", "blk.{}.attn_kv_a_mqa"},
    {"layers.{}.self_attn.kv_a_layernorm", "blk.{}.attn_kv_a_norm"},
    {"layers.{}.self_attn.kv_b_proj", "blk.{}.attn_kv_b"},
    {"layers.{}.self_attn.embed_q", "blk.{}.attn_k_b"},
    {"layers.{}.self_attn.unembed_out", "blk.{}.attn_v_b"},
    // Mixtures of experts: one tensor an expert, or all stacked.
    {"layers.{}.mlp.gate", "blk.{}.ffn_gate_inp"},
    {"layers.{}.mlp.router", "blk.{}.ffn_gate_inp"},
    {"layers.{}.mlp.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias"},
    {"layers.{}.mlp.experts.{}.gate_proj", "blk.{}.ffn_gate.{}"},
    {"layers.{}.mlp.experts.{}.up_proj", "blk.{}.ffn_up.{}"},
    {"layers.{}.mlp.experts.{}.down_proj", "blk.{}.ffn_down.{}"},
    {"layers.{}.mlp.experts.gate_proj", "blk.{}.ffn_gate_exps"},
    {"layers.{}.mlp.experts.up_proj", "blk.{}.ffn_up_exps"},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps"},
    {"layers.{}.mlp.switch_mlp.gate_proj", "blk.{}.ffn_gate_exps"},
    {"layers.{}.mlp.switch_mlp.up_proj", "blk.{}.ffn_up_exps"},
    {"layers.{}.mlp.switch_mlp.down_proj", "blk.{}.ffn_down_exps"},
    {"layers.{}.mlp.shared_experts.gate_proj", "blk.{}.ffn_gate_shexp"},
    {"layers.{}.mlp.shared_experts.up_proj", "blk.{}.ffn_up_shexp"},
    {"layers.{}.mlp.shared_experts.down_proj", "blk.{}.ffn_down_shexp"},
    {"layers.{}.block_sparse_moe.gate", "blk.{}.ffn_gate_inp"},
    {"layers.{}.block_sparse_moe.experts.{}.w1", "blk.{}.ffn_gate.{}"},
    {"layers.{}.block_sparse_moe.experts.{}.w3", "blk.{}.ffn_up.{}"},
    {"layers.{}.block_sparse_moe.experts.{}.w2", "blk.{}.ffn_down.{}"},
    {"layers.{}.block_sparse_moe.switch_mlp.gate_proj", "blk.{}.ffn_gate_exps"},
    {"layers.{}.block_sparse_moe.switch_mlp.up_proj", "blk.{}.ffn_up_exps"},
    {"layers.{}.block_sparse_moe.switch_mlp.down_proj", "blk.{}.ffn_down_exps"},
};

// Tables that old exporters stored beside the weights.
constexpr std::array<std::string_view, 4> kComputed{"rotary_emb.inv_freq", "rotary_emb.cos_cached",
                                                    "rotary_emb.sin_cached", "embeddings.position_ids"};

// Encoders' heads for guessing words that were hidden in training: nothing else needs them.
constexpr std::array<std::string_view, 3> kTraining{"cls.predictions.", "cls.seq_relationship.", "lm_head."};

bool is_number(std::string_view part) {
  return !part.empty() && std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// "layers.3.mlp" → "layers.{}.mlp" and ["3"].
std::string pattern_of(std::string_view path, std::vector<std::string_view>& numbers) {
  std::string pattern;
  while (true) {
    const std::size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    if (is_number(part)) {
      numbers.push_back(part);
      pattern += "{}";
    } else {
      pattern += part;
    }
    if (dot == std::string_view::npos) return pattern;
    pattern += '.';
    path.remove_prefix(dot + 1);
  }
}

std::string fill(std::string_view pattern, const std::vector<std::string_view>& numbers) {
  std::string text;
  std::size_t next = 0;
  for (std::size_t at = 0; at < pattern.size();) {
    if (pattern.substr(at, 2) == "{}" && next < numbers.size()) {
      text += numbers[next++];
      at += 2;
    } else {
      text += pattern[at++];
    }
  }
  return text;
}

const Rename* find(std::span<const Rename> table, std::string_view from) {
  const auto found = std::ranges::find(table, from, &Rename::from);
  return found == table.end() ? nullptr : &*found;
}

std::optional<std::string> rename(const HfFamily& family, std::string_view path) {
  std::vector<std::string_view> numbers;
  const std::string pattern = pattern_of(path, numbers);
  const Rename* entry = find(family.names, pattern);
  if (entry == nullptr) entry = find(kShared, pattern);
  if (entry == nullptr) return std::nullopt;
  return fill(entry->to, numbers);
}

}  // namespace

std::string canonical_tensor_name(const HfFamily& family, std::string_view name) {
  for (const std::string_view computed : kComputed) {
    if (name.ends_with(computed)) return {};
  }
  for (const std::string_view head : kTraining) {
    if (family.encoder && name.starts_with(head)) return {};
  }
  std::string_view path = name;
  for (const std::string_view prefix :
       {"language_model.", "model.", "language_model.", "bert.", "roberta."}) {
    if (path.starts_with(prefix)) path.remove_prefix(prefix.size());
  }
  if (const auto whole = rename(family, path)) {
    return whole->ends_with(".bias") ? *whole : *whole + ".weight";
  }
  const std::size_t dot = path.rfind('.');
  if (dot != std::string_view::npos) {
    if (const auto module = rename(family, path.substr(0, dot))) {
      return *module + std::string(path.substr(dot));
    }
  }
  return std::string(name);
}

}  // namespace mlxs
