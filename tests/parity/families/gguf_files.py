"""GGUF files from folders that mlx-lm saved, laid out as llama.cpp's converter lays out each architecture."""

import json
import math
from pathlib import Path

import gguf
import numpy as np

A = gguf.MODEL_ARCH
ARCHITECTURES = {
    "llama": A.LLAMA,
    "mistral": A.LLAMA,
    "mixtral": A.LLAMA,
    "smollm3": A.SMOLLM3,
    "qwen2": A.QWEN2,
    "qwen3": A.QWEN3,
    "qwen3_moe": A.QWEN3MOE,
    "gemma2": A.GEMMA2,
    "gemma3_text": A.GEMMA3,
    "phi3": A.PHI3,
    "gpt_oss": A.GPT_OSS,
    "deepseek_v3": A.DEEPSEEK2,
}
# mlx-lm stacks experts, and splits the latent projection, under names that gguf's map does not have.
STACKED = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
SPLIT = {"embed_q": "attn_k_b", "unembed_out": "attn_v_b"}
# Whose rotated pairs the converter puts side by side.
INTERLEAVED = {"llama", "mistral", "mixtral", "smollm3"}


def tensor_name(architecture, name, blocks):
    parts = name.split(".")
    if parts[-2] in STACKED and ("switch_mlp" in parts or "experts" in parts):
        return f"blk.{parts[2]}.{STACKED[parts[-2]]}.{parts[-1]}"
    if parts[-2] in SPLIT:
        return f"blk.{parts[2]}.{SPLIT[parts[-2]]}.{parts[-1]}"
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")  # as llama.cpp's converter does
    names = gguf.get_tensor_name_map(architecture, blocks)
    known = names.get_name(name, try_suffixes=(".weight", ".bias"))
    return known if known is None or known.endswith((".weight", ".bias")) else known + ".weight"


def side_by_side(weight, heads):
    """Rows (i, i + d/2) of each head become neighbours."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def llama3_factors(config):
    """rope_freqs: what each frequency is divided by."""
    scaling = config["rope_scaling"]
    low, high = (scaling["original_max_position_embeddings"] / scaling[f"{w}_freq_factor"] for w in ("low", "high"))
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    factors = []
    for i in range(0, dim, 2):
        wave = 2 * math.pi * config["rope_theta"] ** (i / dim)
        if wave < high:
            factors.append(1.0)
        elif wave > low:
            factors.append(scaling["factor"])
        else:
            smooth = (scaling["original_max_position_embeddings"] / wave - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def add_rope(writer, config, dims):
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(dims)
    scaling = config.get("rope_scaling")
    if not scaling:
        return
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    elif kind == "longrope":
        old, new = config["original_max_position_embeddings"], config["max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(old)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(new / old) / math.log(old)))
        writer.add_tensor("rope_factors_long.weight", np.array(scaling["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(scaling["short_factor"], dtype=np.float32))
    elif kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(scaling["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
            if "mscale_all_dim" in scaling:
                writer.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])


def add_latent(writer, config):
    """Latents count as one head's keys and values, and the heads' own sizes have keys of their own."""
    rank, rotated = config["kv_lora_rank"], config["qk_rope_head_dim"]
    writer.add_head_count_kv(1)
    writer.add_key_length(rank + rotated)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rotated)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_kv_lora_rank(rank)
    if config["q_lora_rank"]:
        writer.add_q_lora_rank(config["q_lora_rank"])
    add_rope(writer, config, rotated)
    if not config["n_routed_experts"]:
        return
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])


def add_parameters(writer, config):
    family = config["model_type"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if "kv_lora_rank" in config:
        add_latent(writer, config)
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        if "head_dim" in config:
            writer.add_key_length(head)
            writer.add_value_length(head)
        add_rope(writer, config, int(head * config.get("partial_rotary_factor", 1.0)))
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        writer.add_sliding_window(config["sliding_window"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    experts = next((config[k] for k in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(k)), None)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        inner = config["intermediate_size"] if family == "gpt_oss" else config.get("moe_intermediate_size")
        if inner:
            writer.add_expert_feed_forward_length(inner)


def add_vocabulary(writer, folder, config):
    saved = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in saved["added_tokens"]}
    ids = {**saved["model"]["vocab"], **special}
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * len(tokens)
    for text, index in ids.items():
        tokens[index] = text
        kinds[index] = gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in saved["model"]["merges"]])
    writer.add_bos_token_id(special["<s>"])
    writer.add_eos_token_id(special["</s>"])


def converted(config, name, weight):
    """A tensor as the converter writes it: fp32, rows reordered, gains of Gemma with their one added."""
    family = config["model_type"]
    if family in INTERLEAVED and name.endswith(("q_proj.weight", "k_proj.weight")):
        weight = side_by_side(weight, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
    if family.startswith("gemma") and name.endswith("norm.weight"):
        weight = weight + 1
    return np.ascontiguousarray(weight, dtype=np.float32)


def write(folder, path, kind=gguf.GGMLQuantizationType.F32):
    """folder, saved in fp32, as one GGUF file. Matrices become kind; the folder's own are rounded to what the file holds,
    so that an oracle that reads the folder computes the same."""
    import mlx.core as mx

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    weights = mx.load(str(folder / "model.safetensors"))
    for name, weight in weights.items():
        weight = np.array(weight.astype(mx.float32))
        matrix = weight.ndim > 1 and not name.endswith(".bias") and "gate.weight" not in name and "router" not in name
        if matrix:
            weight = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind).reshape(weight.shape)
            weights[name] = mx.array(weight)
        stored = converted(config, name, weight)
        given = gguf.quants.quantize(stored, kind) if matrix else stored
        canonical = tensor_name(architecture, name, config["num_hidden_layers"])
        writer.add_tensor(canonical, given, raw_dtype=kind if matrix else gguf.GGMLQuantizationType.F32)
    add_parameters(writer, config)
    add_vocabulary(writer, folder, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return path
