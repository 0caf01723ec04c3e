"""A tiny random llama as a Hugging Face folder: for tests of everything around a model whose KV pages are real."""

import json
import math

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, HEADS, HEAD, INNER, LAYERS, CONTEXT = 64, 2, 32, 128, 2, 4096


def write_tiny_llama(folder, **settings) -> str:
    """A byte is a token, and 16 of them are 8 KiB of KV: 1 MiB of KV cache holds 128 pages."""
    folder.mkdir()
    words = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}))
    vocabulary = tokenizer.get_vocab_size() // 64 * 64 + 64
    random = np.random.default_rng(1)

    def matrix(*shape):
        return (random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)

    w = {"model.embed_tokens.weight": matrix(vocabulary, HIDDEN), "lm_head.weight": matrix(vocabulary, HIDDEN)}
    w["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        w |= {f"{at}.self_attn.{part}_proj.weight": matrix(HEADS * HEAD, HIDDEN) for part in "qkv"}
        w[f"{at}.self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD)
        w |= {f"{at}.mlp.{part}_proj.weight": matrix(INNER, HIDDEN) for part in ("gate", "up")}
        w[f"{at}.mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
        w |= {f"{at}.{norm}_layernorm.weight": np.ones(HIDDEN, np.float32) for norm in ("input", "post_attention")}
    save_file(w, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.token_to_id("</s>"),
        "torch_dtype": "float32",
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
