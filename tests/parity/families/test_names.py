"""Every family of the table in hf_families.cpp: the tensors that mlx-lm saves get GGUF's names, by the gguf package's own map,
and config.json becomes GGUF's keys. Whether a family also runs is for its own test."""

import json
import os
import re
import subprocess

import gguf
import gguf_files
import pytest
import tiny

BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": tiny.VOCABULARY,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
FAMILIES = {
    "llama": {},
    "mistral": {},
    "smollm3": {"no_rope_layer_interval": 2, "no_rope_layers": [1, 0]},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": {"tie_word_embeddings": True, "query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32, "rope_scaling": None},
    "deepseek_v3": {
        **EXPERTS,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        "num_key_value_heads": 4,
    },
}
KEYS = {
    gguf.Keys.LLM.BLOCK_COUNT: "num_hidden_layers",
    gguf.Keys.LLM.EMBEDDING_LENGTH: "hidden_size",
    gguf.Keys.LLM.FEED_FORWARD_LENGTH: "intermediate_size",
    gguf.Keys.LLM.CONTEXT_LENGTH: "max_position_embeddings",
    gguf.Keys.LLM.EXPERT_COUNT: ("num_experts", "num_local_experts", "n_routed_experts"),
    gguf.Keys.LLM.EXPERT_USED_COUNT: "num_experts_per_tok",
    gguf.Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: "moe_intermediate_size",
    gguf.Keys.LLM.EXPERT_SHARED_COUNT: "n_shared_experts",
    gguf.Keys.LLM.EXPERT_GROUP_COUNT: "n_group",
    gguf.Keys.LLM.EXPERT_GROUP_USED_COUNT: "topk_group",
    gguf.Keys.LLM.EXPERT_WEIGHTS_NORM: "norm_topk_prob",
    gguf.Keys.LLM.LEADING_DENSE_BLOCK_COUNT: "first_k_dense_replace",
    gguf.Keys.Attention.HEAD_COUNT: "num_attention_heads",
    gguf.Keys.Attention.HEAD_COUNT_KV: "num_key_value_heads",
    gguf.Keys.Attention.LAYERNORM_RMS_EPS: "rms_norm_eps",
    gguf.Keys.Attention.Q_LORA_RANK: "q_lora_rank",
    gguf.Keys.Attention.KV_LORA_RANK: "kv_lora_rank",
    gguf.Keys.Attention.SLIDING_WINDOW: "sliding_window",
    gguf.Keys.Rope.FREQ_BASE: "rope_theta",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_keys_are_those_of_gguf(family, tmp_path):
    architecture = gguf_files.ARCHITECTURES[family]
    config = {**BASE, "model_type": family, **FAMILIES[family]}
    folder = tiny.save(tmp_path / "model", config)
    saved = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shown = subprocess.run(
        [os.environ["MLXS_BIN"], "show", folder, "--json", "--tensors"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    shown = json.loads(shown.stdout)
    ours = {tensor["name"] for tensor in shown["tensors"]}
    assert all(re.fullmatch(r"(token_embd|output|output_norm|blk\.\d+\.[a-z_]+)\.(weight|bias)", name) for name in ours), ours
    expected = {gguf_files.tensor_name(architecture, name, config["num_hidden_layers"]) for name in saved}
    assert ours == expected
    named = shown["architecture"]
    assert named == ("mixtral" if family == "mixtral" else gguf.MODEL_ARCH_NAMES[architecture])
    for key, sources in KEYS.items():
        source = next((s for s in ([sources] if isinstance(sources, str) else sources) if s in config), None)
        if source is not None:
            assert shown["metadata"][key.format(arch=named)] == config[source], key
