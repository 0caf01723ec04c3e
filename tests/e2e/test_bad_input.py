"""Broken model folders through the built program: each is refused with one message that names what is wrong, nothing is printed
as an answer, and nothing of it stays behind."""

import json
import struct

import numpy as np
import pytest
from program import needs_program, run
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

pytestmark = needs_program
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
}


def tensors():
    shapes = {"model.embed_tokens.weight": (8, 64), "model.norm.weight": (64,), "lm_head.weight": (8, 64)}
    for i in range(2):
        at = f"model.layers.{i}."
        shapes |= {f"{at}{name}_layernorm.weight": (64,) for name in ("input", "post_attention")}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (64, 64) for name in "qkvo"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (128, 64) for name in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (64, 128)}
    return {name: np.ones(shape, np.float32) * 0.01 for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    Tokenizer(models.WordLevel({c: i for i, c in enumerate("abcdefgh")}, unk_token="a")).save(str(folder / "tokenizer.json"))
    save_file(tensors(), folder / "model.safetensors")
    return folder


def configure(folder, **values):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **values}))


def header(folder, entries, data=b""):
    text = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def at(begin, end, shape=(2,)):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def shards(folder, where):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def without(folder, part):
    save_file({name: value for name, value in tensors().items() if part not in name}, folder / "model.safetensors")


CASES = {
    "unknown architecture": (
        lambda f: configure(f, model_type="zebra"),
        ["model_type 'zebra' is not supported", "llama, mistral"],
    ),
    "config.json is no JSON": (lambda f: (f / "config.json").write_text('{"model_type": '), ["config.json"]),
    "no config.json": (lambda f: (f / "config.json").unlink(), ["config.json is missing"]),
    "no tokenizer.json": (lambda f: (f / "tokenizer.json").unlink(), ["tokenizer.json is missing"]),
    "tokenizer.json is damaged": (lambda f: (f / "tokenizer.json").write_text('{"model": 5}'), ["tokenizer.json"]),
    "missing tensor": (lambda f: without(f, "layers.1.mlp.up_proj"), ["'model.layers.1.mlp.up_proj.weight' is missing"]),
    "extra tensor": (
        lambda f: save_file(
            {**tensors(), "model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}, f / "model.safetensors"
        ),
        ["have no place in the architecture 'llama'", "q_proj.bias"],
    ),
    "shape against the config": (lambda f: configure(f, intermediate_size=96), ["mlp.", "[128, 64]", "[96, 64]"]),
    "fewer layers than tensors": (lambda f: configure(f, num_hidden_layers=1), ["layers.1.", "no place"]),
    "heads that do not divide": (lambda f: configure(f, num_attention_heads=3), ["3"]),
    "index names a missing shard": (
        lambda f: shards(f, {"model.norm.weight": "model-00001-of-00002.safetensors"}),
        ["'model-00001-of-00002.safetensors', which is missing"],
    ),
    "index leaves the folder": (lambda f: shards(f, {"a": "../x.safetensors"}), ["../x.safetensors"]),
    "index is no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("[1"), ["model.safetensors.index.json"]),
    "header of 2^60 bytes": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}"),
        ["model.safetensors", "1152921504606846976"],
    ),
    "empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), ["model.safetensors"]),
    "header is no JSON": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{]"), ["model.safetensors"]),
    "overlapping tensors": (
        lambda f: header(f, {"model.norm.weight": at(0, 8), "lm_head.weight": at(4, 12)}, b"\0" * 12),
        ["model.safetensors", "overlap"],
    ),
    "tensor beyond the end": (
        lambda f: header(f, {"model.norm.weight": at(0, 8), "lm_head.weight": at(8, 16)}, b"\0" * 12),
        ["model.safetensors", "lm_head.weight"],
    ),
    "offsets that wrap": (lambda f: header(f, {"model.norm.weight": at(2**64 - 8, 2**64 - 1)}, b"\0" * 8), ["model.norm.weight"]),
    "size that is negative": (lambda f: header(f, {"model.norm.weight": at(0, 8, [-2])}, b"\0" * 8), ["model.norm.weight"]),
    "shape that overflows": (
        lambda f: header(f, {"model.norm.weight": at(0, 8, [2**32, 2**32])}, b"\0" * 8),
        ["model.norm.weight"],
    ),
    "cut in the middle": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:40_000]),
        ["model.safetensors"],
    ),
}


def test_the_folder_itself_is_fine(folder, tmp_path):
    result = run("run", str(folder), "a b", "--raw", "--max-tokens", "2", cache=tmp_path / "cache")
    assert result.status == 0, result.err


@pytest.mark.parametrize("case", CASES)
def test_is_refused_with_one_message(folder, tmp_path, case):
    damage, words = CASES[case]
    damage(folder)
    cache = tmp_path / "cache"
    for command in (["run", str(folder), "a"], ["serve", str(folder), "--port", "0"]):
        result = run(*command, cache=cache)
        assert (result.status, result.out) == (1, ""), result
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, result.err
        assert all(word in errors[0] for word in words), errors
        assert str(folder) in errors[0] or "tensor" in errors[0], errors  # and where it is
    packed = cache / "packed"
    assert not packed.exists() or not any(packed.iterdir()), "half of a model was packed"
    # show may describe what it can read, plan may count it; neither may crash.
    for command in ("show", "plan"):
        result = run(command, str(folder), cache=cache)
        assert result.status in (0, 1), result
        assert result.status == 0 or sum(line.startswith("error: ") for line in result.err.splitlines()) == 1, result.err
