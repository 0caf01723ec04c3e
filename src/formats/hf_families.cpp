#include "formats/hf_families.h"

#include <algorithm>
#include <array>

namespace mlxs {
namespace {

// Gemma norms around each half of a block; "post_attention_layernorm" means something else than in llama.
constexpr Rename kSandwichNorms[] = {
    {"layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"},
    {"layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm"},
    {"layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm"},
};

// gpt-oss as OpenAI publishes it: rows of gate and up in turn.
constexpr Rename kGptOss[] = {
    {"layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"},
    {"layers.{}.mlp.experts.gate_up_proj_blocks", "blk.{}.ffn_gate_up_pairs"},
    {"layers.{}.mlp.experts.gate_up_proj_bias", "blk.{}.ffn_gate_up_pairs.bias"},
    {"layers.{}.mlp.experts.down_proj_blocks", "blk.{}.ffn_down_exps"},
    {"layers.{}.mlp.experts.down_proj_bias", "blk.{}.ffn_down_exps.bias"},
};

constexpr Rename kBert[] = {
    {"embeddings.word_embeddings", "token_embd"},
    {"embeddings.position_embeddings", "position_embd"},
    {"embeddings.token_type_embeddings", "token_types"},
    {"embeddings.LayerNorm", "token_embd_norm"},
    {"encoder.layer.{}.attention.self.query", "blk.{}.attn_q"},
    {"encoder.layer.{}.attention.self.key", "blk.{}.attn_k"},
    {"encoder.layer.{}.attention.self.value", "blk.{}.attn_v"},
    {"encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"},
    {"encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"},
    {"encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"},
    {"encoder.layer.{}.output.dense", "blk.{}.ffn_down"},
    {"encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"},
    {"pooler.dense", "cls"},
    {"classifier", "cls.output"},
    {"classifier.dense", "cls"},
    {"classifier.out_proj", "cls.output"},
};

constexpr std::array kFamilies{
    HfFamily{.model_type = "llama", .architecture = "llama"},
    HfFamily{.model_type = "mistral", .architecture = "llama"},
    HfFamily{.model_type = "smollm3", .architecture = "smollm3"},
    HfFamily{.model_type = "qwen2",
             .architecture = "qwen2",
             .defaults = R"({"use_sliding_window": false, "max_position_embeddings": 32768})"},
    HfFamily{.model_type = "qwen3",
             .architecture = "qwen3",
             .defaults = R"({"use_sliding_window": false, "max_position_embeddings": 32768})"},
    HfFamily{.model_type = "qwen3_moe",
             .architecture = "qwen3moe",
             .defaults = R"({"use_sliding_window": false, "max_position_embeddings": 32768})"},
    HfFamily{.model_type = "phi3", .architecture = "phi3"},
    HfFamily{.model_type = "mixtral", .architecture = "mixtral"},
    HfFamily{.model_type = "gemma2",
             .architecture = "gemma2",
             .activation = "gelu_pytorch_tanh",
             .defaults = R"({"norm_unit_offset": true, "head_dim": 256,
                             "max_position_embeddings": 8192, "sliding_window": 4096,
                             "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                             "query_pre_attn_scalar": 256})",
             .names = kSandwichNorms},
    HfFamily{.model_type = "gemma3_text",
             .architecture = "gemma3",
             .activation = "gelu_pytorch_tanh",
             .defaults = R"({"norm_unit_offset": true, "hidden_size": 1152,
                             "num_hidden_layers": 26, "intermediate_size": 6912, "num_attention_heads": 4,
                             "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6,
                             "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
                             "query_pre_attn_scalar": 256, "sliding_window": 512,
                             "sliding_window_pattern": 6, "max_position_embeddings": 32768})",
             .names = kSandwichNorms},
    HfFamily{.model_type = "gpt_oss",
             .architecture = "gpt-oss",
             .defaults = R"({"sliding_window": 128, "rope_theta": 150000})",
             .names = kGptOss},
    HfFamily{.model_type = "deepseek_v3",
             .architecture = "deepseek2",
             .defaults = R"({"rope_interleave": true, "scoring_func": "sigmoid", "norm_topk_prob": true})"},
    HfFamily{.model_type = "bert",
             .architecture = "bert",
             .activation = "gelu",
             .defaults = R"({"type_vocab_size": 2})",
             .names = kBert,
             .encoder = true},
    HfFamily{.model_type = "roberta",
             .architecture = "roberta",
             .activation = "gelu",
             .defaults = R"({"type_vocab_size": 1, "pad_token_id": 1})",
             .names = kBert,
             .encoder = true},
    HfFamily{.model_type = "xlm-roberta",
             .architecture = "roberta",
             .activation = "gelu",
             .defaults = R"({"type_vocab_size": 1, "pad_token_id": 1})",
             .names = kBert,
             .encoder = true},
};

}  // namespace

const HfFamily* find_hf_family(std::string_view model_type) {
  const auto found = std::ranges::find(kFamilies, model_type, &HfFamily::model_type);
  return found == kFamilies.end() ? nullptr : &*found;
}

std::string supported_model_types() {
  std::string list;
  for (const HfFamily& family : kFamilies) {
    if (!list.empty()) list += ", ";
    list += family.model_type;
  }
  return list;
}

}  // namespace mlxs
