#!/usr/bin/env python3
"""A whole model as a GGUF file: the sizes of a published config.json, random 4-bit weights, a tokenizer of bytes.

For programs that want a file where the real one is too large to fetch: a server under load, the loader, llama.cpp beside us.
usage: bench/synthetic_gguf.py bench/configs/gemma-2-27b-4bit.json /dev/shm/gemma.gguf
(numpy; qwen3, qwen3_moe, gemma2, gemma3_text, llama)
"""

import json
import struct
import sys

import numpy as np

F32, Q4_0 = 0, 2
BLOCK, BLOCK_BYTES = 32, 18
NAMES = {"qwen3": "qwen3", "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3", "llama": "llama"}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, value) -> bytes:
    head = text(key)
    if isinstance(value, bool):
        return head + struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return head + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return head + struct.pack("<If", 6, value)
    if isinstance(value, str):
        return head + struct.pack("<I", 8) + text(value)
    if isinstance(value[0], int):
        return head + struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    return head + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))


def byte_symbols() -> list[str]:
    """Bytes as byte-level BPE spells them: those that are not printable are moved above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]


def metadata(config: dict, arch: str) -> dict:
    vocabulary = config["vocab_size"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_symbols(), "he"]
    # Random weights choose mostly these: tokens of text as others, for clients that wait for some.
    tokens += [f"<unused{i}>" for i in range(vocabulary - len(tokens))]
    values = {
        "general.architecture": arch,
        "general.name": "synthetic " + arch,
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": config["num_attention_heads"],
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.key_length": config["head_dim"],
        f"{arch}.attention.value_length": config["head_dim"],
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.freq_base": float(config["rope_theta"]),
        f"{arch}.vocab_size": vocabulary,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (vocabulary - 3),
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    }
    if arch == "qwen3moe":
        values[f"{arch}.expert_count"] = config["num_experts"]
        values[f"{arch}.expert_used_count"] = config["num_experts_per_tok"]
        values[f"{arch}.expert_feed_forward_length"] = config["moe_intermediate_size"]
    if arch == "gemma2":
        values[f"{arch}.attn_logit_softcapping"] = float(config["attn_logit_softcapping"])
        values[f"{arch}.final_logit_softcapping"] = float(config["final_logit_softcapping"])
    if arch.startswith("gemma"):
        values[f"{arch}.attention.sliding_window"] = config["sliding_window"]
    return values


def tensors(config: dict, arch: str):
    """Name, shape as in files ([experts,] out, in) and type of each."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    wide = config["intermediate_size"]
    yield "token_embd.weight", (config["vocab_size"], hidden), Q4_0
    yield "output_norm.weight", (hidden,), F32
    if not config.get("tie_word_embeddings"):
        yield "output.weight", (config["vocab_size"], hidden), Q4_0
    for layer in range(config["num_hidden_layers"]):
        blk = f"blk.{layer}."
        for norm in ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if arch.startswith("gemma") else []):
            yield f"{blk}{norm}.weight", (hidden,), F32
        for norm in ["attn_q_norm", "attn_k_norm"] if arch.startswith(("qwen3", "gemma3")) else []:
            yield f"{blk}{norm}.weight", (head,), F32
        for name, out in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)]:
            yield f"{blk}{name}.weight", (out, hidden), Q4_0
        yield f"{blk}attn_output.weight", (hidden, queries), Q4_0
        if arch == "qwen3moe":
            experts, wide = config["num_experts"], config["moe_intermediate_size"]
            yield f"{blk}ffn_gate_inp.weight", (experts, hidden), F32
            yield f"{blk}ffn_gate_exps.weight", (experts, wide, hidden), Q4_0
            yield f"{blk}ffn_up_exps.weight", (experts, wide, hidden), Q4_0
            yield f"{blk}ffn_down_exps.weight", (experts, hidden, wide), Q4_0
        else:
            yield f"{blk}ffn_gate.weight", (wide, hidden), Q4_0
            yield f"{blk}ffn_up.weight", (wide, hidden), Q4_0
            yield f"{blk}ffn_down.weight", (hidden, wide), Q4_0


class Random:
    """Blocks of weights of order 1/sqrt(in): a few megabytes of them, from another place each time."""

    def __init__(self):
        self.random = np.random.default_rng(1)
        self.pools = {}

    def q4_0(self, count: int, columns: int):
        pool = self.pools.get(columns)
        if pool is None:
            pool = self.random.integers(0, 256, (1 << 20, BLOCK_BYTES), dtype=np.uint8)
            pool[:, :2] = np.frombuffer(np.float16(1 / (4.6 * columns**0.5)).tobytes(), np.uint8)
            self.pools[columns] = pool
        while count > 0:
            start = int(self.random.integers(0, len(pool) // 2))
            some = pool[start : start + min(count, len(pool) // 2)]
            count -= len(some)
            yield some.data

    def f32(self, shape, norm: bool):
        values = np.ones(shape, np.float32) if norm else self.random.standard_normal(shape, np.float32) / shape[-1] ** 0.5
        yield np.ascontiguousarray(values).data


def main() -> None:
    with open(sys.argv[1]) as file:
        config = json.load(file)
    arch = NAMES[config["model_type"]]
    values = metadata(config, arch)
    infos, offset, plan = [], 0, []
    for name, shape, kind in tensors(config, arch):
        count = int(np.prod(shape, dtype=np.int64))
        size = count * 4 if kind == F32 else count // BLOCK * BLOCK_BYTES
        dims = shape[::-1]
        infos.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        plan.append((name, shape, kind, count, size))
        offset += (size + 31) // 32 * 32
    random = Random()
    with open(sys.argv[2], "wb", buffering=1 << 20) as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(values)))
        out.write(b"".join(entry(*item) for item in values.items()) + b"".join(infos))
        out.write(b"\0" * (-out.tell() % 32))
        for name, shape, kind, count, size in plan:
            parts = random.q4_0(count // BLOCK, shape[-1]) if kind == Q4_0 else random.f32(shape, "norm" in name)
            for part in parts:
                out.write(part)
            out.write(b"\0" * (-size % 32))
        print(f"{sys.argv[2]}: {out.tell() / 1e9:.2f} GB, {len(plan)} tensors")


if __name__ == "__main__":
    main()
