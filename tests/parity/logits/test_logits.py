"""Logits against mlx-lm: the same GGUF, dequantized, run in fp32 by mlx-lm's llama on real text.

The oracle is slow on a CPU (over a minute), so its logits are kept beside the build, keyed by everything they depend on.
"""

import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
BUILD = Path(os.environ["MLXS_BUILD_DIR"])
MODEL = Path(os.environ["MLXS_TEST_MODEL"])
POSITIONS = 1024
WINDOW = 256  # independent sequences: the positions restart, so early and late ones both count


def dequantized_model():
    """mlx-lm's own llama with the GGUF's weights in fp32."""
    import gguf
    import mlx.core as mx
    from mlx_lm.models import llama

    reader = gguf.GGUFReader(str(MODEL))

    def field(name):
        return reader.fields[name].contents()

    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=field("llama.embedding_length"),
        num_hidden_layers=field("llama.block_count"),
        intermediate_size=field("llama.feed_forward_length"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        vocab_size=field("llama.vocab_size"),
        rope_theta=field("llama.rope.freq_base"),
        rope_traditional=True,  # GGUF keeps llama's rotated pairs side by side
        tie_word_embeddings=True,
    )
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    weights = []
    for tensor in reader.tensors:
        data = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in top:
            name = top[tensor.name]
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{names[part]}.weight"
        weights.append((name, mx.array(data)))
    model = llama.Model(args)
    model.load_weights(weights, strict=True)
    return model


def oracle_logits(tokens):
    key = hashlib.sha256(
        b"".join([MODEL.name.encode(), str(MODEL.stat().st_size).encode(), tokens.tobytes(), Path(__file__).read_bytes()])
    ).hexdigest()[:16]
    cached = BUILD / "oracle" / f"logits-{key}.npy"
    if not cached.exists():
        import mlx.core as mx

        model = dequantized_model()
        rows = [np.array(model(mx.array(window[None]))[0]) for window in tokens.reshape(-1, WINDOW)]
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(".part.npy")
        np.save(part, np.concatenate(rows))
        part.rename(cached)
    return np.load(cached, mmap_mode="r")


def our_logits(tokens, tmp_path, environment):
    rows = []
    for i, window in enumerate(tokens.reshape(-1, WINDOW)):
        given, result = tmp_path / f"{i}.tokens", tmp_path / f"{i}.logits"
        given.write_bytes(window.tobytes())
        subprocess.run([BUILD / "tests" / "eval_logits", MODEL, given, result], check=True, env={**os.environ, **environment})
        rows.append(np.fromfile(result, dtype=np.float32).reshape(WINDOW, -1))
        result.unlink()
    return np.concatenate(rows)


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def tokens():
    """text.txt as llama.cpp tokenizes it, recorded (the tokenizer has a parity test of its own)."""
    ids = [int(word) for word in (HERE / "tokens.txt").read_text().split()]
    assert len(ids) == POSITIONS
    return np.array(ids, dtype=np.int32)


@pytest.fixture(scope="module")
def oracle(tokens):
    return oracle_logits(tokens)


# int8 keys and values are an option for long contexts; what they cost in agreement is stated here.
LEAST_TOP1 = {"bf16": 0.99, "int8": 0.97}


@pytest.mark.parametrize(
    ("isa", "kv"),
    [("amx", "bf16"), ("avx512", "bf16"), ("avx2", "bf16"), ("portable", "bf16"), ("amx", "int8"), ("avx512", "int8")],
)
def test_logits_match_mlx_lm(isa, kv, tokens, oracle, tmp_path):
    """A path the machine lacks falls back to the next best, which is compared again: still a real comparison."""
    ours = our_logits(tokens, tmp_path, {"MLXS_CPU_ISA": isa, "MLXS_TEST_KV": kv})
    agreement, divergence = [], []
    for begin in range(0, POSITIONS, WINDOW):
        ref = log_softmax(oracle[begin : begin + WINDOW])
        got = log_softmax(ours[begin : begin + WINDOW])
        agreement.append((ref.argmax(-1) == got.argmax(-1)).mean())
        divergence.append((np.exp(ref) * (ref - got)).sum(-1).mean())
    top1, kl = np.mean(agreement), np.mean(divergence)
    print(f"{isa}, {kv} KV: top-1 agreement {top1:.4%}, mean KL {kl:.2e} over {POSITIONS} positions")
    assert top1 >= LEAST_TOP1[kv]
    assert kl <= 2e-3
