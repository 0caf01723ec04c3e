// The model families of Hugging Face and MLX folders: how config.json and tensor names become the canonical
// (GGUF) ones. One entry a family in hf_families.cpp; names that all families share stand once, in
// hf_names.cpp and hf_config.cpp. Pure data.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mlxs {

// A module path without "model." in front, each number written {}, → the canonical one. The last part
// ("weight", "bias") is kept; one without it becomes ".weight".
struct Rename {
  std::string_view from;  // "layers.{}.self_attn.q_proj"
  std::string_view to;    // "blk.{}.attn_q"
};

struct HfFamily {
  std::string_view model_type;           // config.json's
  std::string_view architecture;         // canonical: general.architecture and the prefix of its keys
  std::string_view activation = "silu";  // the hidden_act (hidden_activation) that the family computes
  // What transformers or mlx-lm assume where config.json is silent; JSON.
  std::string_view defaults = "{}";
  std::span<const Rename> names = {};  // before the shared ones
  bool encoder = false;                // it makes embeddings or scores, not text
};

const HfFamily* find_hf_family(std::string_view model_type);  // nullptr: unknown
std::string supported_model_types();                          // "llama, mistral, …"

}  // namespace mlxs
