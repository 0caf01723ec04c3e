"""Every family on every CPU path and backend against mlx-lm: a tiny random model of its configuration, as mlx-lm saves it."""

import json

import numpy as np
import pytest
import tiny

BASE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": tiny.VOCABULARY,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}
LATENT = {"kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64}
FAMILIES = {
    "llama": {"model_type": "llama"},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama-dynamic": {"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "llama-llama3": {"model_type": "llama", "rope_scaling": LLAMA3},
    "llama-yarn": {"model_type": "llama", "rope_scaling": YARN},
    "mistral": {"model_type": "mistral", "sliding_window": 24},
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0], "no_rope_layer_interval": 4},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    "qwen3": {"model_type": "qwen3", "head_dim": 64},
    "qwen3-head-96": {"model_type": "qwen3", "head_dim": 96},
    "qwen3-head-80": {"model_type": "qwen3", "head_dim": 80},
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 256,
        "head_dim": 64,
        "query_pre_attn_scalar": 144,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "sliding_window": 24,
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "hidden_size": 256,
        "head_dim": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "sliding_window": 24,
        "sliding_window_pattern": 3,
        "rope_theta": 1000000.0,  # untied: mlx-lm saves a random head of its own
    },
    "phi3": {"model_type": "phi3", "partial_rotary_factor": 0.5, "sliding_window": 24},
    "phi3-longrope": {
        "model_type": "phi3",
        "original_max_position_embeddings": 64,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 16,
            "long_factor": [1.0 + i / 4 for i in range(16)],
        },
    },
    "mixtral": {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
        **EXPERTS,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "head_dim": 64,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": 24,
        "rope_scaling": YARN,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        **LATENT,
        "q_lora_rank": 64,
        "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8},
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "n_group": 4,
        "topk_group": 2,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 64,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
    },
    "deepseek_v3-dense": {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        **LATENT,
        "q_lora_rank": None,
        "n_routed_experts": None,
    },
}
# Layers whose windows transformers has and mlx-lm leaves out.
SLIDING = {"mistral": range(4), "qwen2": (2, 3), "gemma2": (0, 2), "phi3": range(4)}
# With every expert chosen nothing can flip, so what they compute is held to the tight bound.
FAMILIES |= {f"{name}-all": {**FAMILIES[name], "num_experts_per_tok": 8} for name in ("mixtral", "qwen3_moe", "gpt_oss")}
FAMILIES["deepseek_v3-all"] = {**FAMILIES["deepseek_v3"], "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1}
FORMATS = {
    "bf16": None,
    "4bit-g64": {"bits": 4, "group_size": 64},
    "8bit-g32": {"bits": 8, "group_size": 32},
}
# Root mean square error in units of the logits' spread: bf16 KV, and on AMX bf16 activations too, against the oracle's fp32.
BOUND = {"amx": 0.04, "avx512": 0.015, "avx2": 0.015, "portable": 0.015, "emulated": 0.04}
# Close router scores flip between experts under rounding, which changes that row and what later rows see of it altogether:
# mixtures that choose are held to a looser bound at the median row.
MIXTURES = {"mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"}
TOKENS = np.random.default_rng(1).integers(0, tiny.VOCABULARY, 96)
PATHS = [("cpu", isa) for isa in ("amx", "avx512", "avx2", "portable")]
PATHS += [(name, "amx") for name in tiny.backends() if name != "cpu"]
# CUDA's kernels, compiled for the CPU: slow, so 4 bits in one step, and BF16 in chunks.
EMULATED = [("cuda", "emulated")] if tiny.emulated() and "cuda" not in tiny.backends() else []


def row_errors(ours, reference):
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    return np.sqrt(((ours - reference) ** 2).mean(-1)) / reference.std(axis=-1)


def logits_on(path, folder, tokens, scratch, **environment):
    backend, isa = path
    environment["MLXS_TEST_BACKEND"] = backend
    if isa == "emulated":
        return tiny.our_logits(folder, tokens, scratch, environment, program="eval_logits_emulated")
    return tiny.our_logits(folder, tokens, scratch, environment | {"MLXS_CPU_ISA": isa})


def oracle(family, folder, tokens):
    return tiny.oracle_logits(folder, tokens, SLIDING.get(family))


@pytest.fixture(scope="module", params=[(f, q) for f in FAMILIES for q in FORMATS], ids=lambda p: "-".join(p))
def model(request, tmp_path_factory):
    family, form = request.param
    config = {**BASE, **FAMILIES[family]}
    folder = tiny.save(tmp_path_factory.mktemp(family) / "model", config, quantization=FORMATS[form])
    return family, form, folder, oracle(family, folder, TOKENS)


def test_prefill_logits(model, tmp_path, record_property):
    family, form, folder, reference = model
    worst = {}
    for path in PATHS + (EMULATED if form == "4bit-g64" else []):
        errors = row_errors(logits_on(path, folder, TOKENS, tmp_path), reference)
        total = np.median(errors) if family in MIXTURES else np.sqrt((errors**2).mean())
        worst["/".join(path)] = float(total)
    print(family, form, {k: f"{v:.1e}" for k, v in worst.items()})
    record_property("result", json.dumps({"family": family, "format": form, "errors": worst}))
    room = 3 if family in MIXTURES else 1
    assert all(error <= room * BOUND[path.split("/")[1]] for path, error in worst.items()), worst


# The cache does not see how weights are stored: one form covers it.
@pytest.mark.parametrize("model", [(f, "bf16") for f in FAMILIES], ids=lambda p: "-".join(p), indirect=True)
@pytest.mark.parametrize("chunk", [1, 7])
def test_decoding_and_chunks_reach_the_same_logits(model, chunk, tmp_path):
    """One token a step from the cache, and a prompt in pieces that end inside pages, against the oracle's single pass."""
    family, _, folder, reference = model
    for path in PATHS + (EMULATED if chunk > 1 else []):
        tokens = TOKENS[: 32 if path in EMULATED else 64]
        errors = row_errors(logits_on(path, folder, tokens, tmp_path, MLXS_TEST_CHUNK=str(chunk)), reference[: len(tokens)])
        total = np.median(errors) if family in MIXTURES else np.sqrt((errors**2).mean())
        assert total <= (3 if family in MIXTURES else 1) * BOUND[path[1]], path


LENGTHS = [3, 17, 30, 64, 41]  # different prompts in one step; the longest leaves pages that the last request finds


@pytest.mark.parametrize("model", [(f, "bf16") for f in FAMILIES], ids=lambda p: "-".join(p), indirect=True)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: "-".join(p))
def test_a_ragged_batch_and_a_prefix_hit_continue_as_the_oracle_does(model, path, tmp_path):
    """Five requests decode 32 tokens together, a sixth starts from the cache: each one's probabilities are those of its text
    alone."""
    family, _, folder, _ = model
    backend, isa = path
    answers = tiny.our_requests(folder, TOKENS, LENGTHS, tmp_path, {"MLXS_TEST_BACKEND": backend, "MLXS_CPU_ISA": isa})
    assert {len(a["tokens"]) for a in answers} == {32}
    assert [a["prompt"] for a in answers] == [*LENGTHS, len(TOKENS)]
    assert answers[-1]["cached"] == 64 // 16 * 16
    errors = []
    for answer in answers:
        text = np.concatenate([TOKENS[: answer["prompt"]], answer["tokens"]])
        logits = oracle(family, folder, text)[answer["prompt"] - 1 : -1].astype(np.float64)
        for row, top in zip(logits, answer["top"], strict=True):
            ids, ours = [i for i, _ in top], np.array([p for _, p in top])
            reference = (row - np.log(np.exp(row - row.max()).sum()) - row.max())[ids]
            errors.append(np.sqrt(((ours - reference) ** 2).mean()) / row.std())
    total = np.median(errors) if family in MIXTURES else np.sqrt((np.array(errors) ** 2).mean())
    # The twenty best are the far tail of the logits, where errors are a little larger than on the whole row.
    assert total <= (3 if family in MIXTURES else 1.5) * BOUND[isa], (family, path, total)
