"""Model files as mlx-lm writes them: every storage form of one family gives the logits that mlx-lm computes from the same file."""

import json

import numpy as np
import pytest
import tiny

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": tiny.VOCABULARY,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
TOKENS = np.random.default_rng(1).integers(0, tiny.VOCABULARY, 96)

FORMS = {
    "f32": ({"dtype": "float32"}, 0.02),
    "f16": ({"dtype": "float16"}, 0.02),
    "bf16": ({}, 0.02),
    "2bit-g64": ({"quantization": {"bits": 2, "group_size": 64}}, 0.02),
    "3bit-g64": ({"quantization": {"bits": 3, "group_size": 64}}, 0.02),
    "4bit-g64": ({"quantization": {"bits": 4, "group_size": 64}}, 0.02),
    "4bit-g128-f16": ({"quantization": {"bits": 4, "group_size": 128}, "dtype": "float16"}, 0.02),
    "5bit-g32": ({"quantization": {"bits": 5, "group_size": 32}}, 0.02),
    "6bit-g64": ({"quantization": {"bits": 6, "group_size": 64}}, 0.02),
    "8bit-g32": ({"quantization": {"bits": 8, "group_size": 32}}, 0.02),
    "mxfp4": ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, 0.02),
}


@pytest.mark.parametrize("form", FORMS)
def test_prefill_logits_match_mlx_lm(form, tmp_path):
    options, bound = FORMS[form]
    folder = tiny.save(tmp_path / "model", LLAMA, **options)
    ours = tiny.our_logits(folder, TOKENS, tmp_path)
    error = tiny.distance(ours, tiny.oracle_logits(folder, TOKENS))
    print(f"{form}: rms error {error:.2e} of the logits' spread")
    assert ours.shape == (len(TOKENS), tiny.VOCABULARY)
    assert error <= bound
