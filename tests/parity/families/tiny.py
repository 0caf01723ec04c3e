"""Tiny random models of a family, saved as mlx-lm saves them, and mlx-lm's own logits of them: the oracle of this folder."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

BUILD = Path(os.environ["MLXS_BUILD_DIR"])
VOCABULARY = 320  # the bytes, a few merges and control tokens, and rows that no token has


def write_tokenizer(folder, *, template=None):
    """A byte-level tokenizer.json with control tokens, made by the tokenizers package, and its settings."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = ["the quick brown fox jumps over the lazy dog and the hare"] * 4
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def save(folder, config, *, dtype="bfloat16", quantization=None, predicate=None, seed=0):
    """Random weights of config.model_type into folder. quantization: {"bits", "group_size", "mode"}; dtype: of plain ones."""
    import mlx.core as mx
    from mlx.utils import tree_map_with_path
    from mlx_lm.utils import _get_classes, quantize_model, save_config, save_model

    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(seed)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))

    def random(path, weight):
        if weight.ndim == 1:  # gains near one, biases and sinks near zero
            center = 1.0 if path.endswith(("norm.weight", "layernorm.weight")) else 0.0
            return (center + 0.1 * mx.random.normal(weight.shape)).astype(mx.float32)
        gain = 8.0 if "embed_tokens" in path else 1.5
        return mx.random.normal(weight.shape) * (gain / weight.shape[-1] ** 0.5)

    model.update(tree_map_with_path(random, model.parameters()))
    model.set_dtype(getattr(mx, dtype))
    config = dict(config)
    if quantization is not None:
        model, config = quantize_model(
            model,
            config,
            quantization["group_size"],
            quantization["bits"],
            quantization.get("mode", "affine"),
            quant_predicate=predicate,
        )
    save_model(folder, model)
    save_config(config, folder / "config.json")
    write_tokenizer(folder)
    return folder


def windowed(layer, window):
    """An mlx-lm layer that sees a window only, whatever mask it is given: for families whose windows mlx-lm leaves out."""
    import mlx.nn as nn
    from mlx_lm.models.base import create_causal_mask

    class Windowed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer
            self.use_sliding = False  # what llama's forward pass asks

        def __call__(self, x, mask, cache):
            return self.layer(x, create_causal_mask(x.shape[1], window_size=window), cache)

    return Windowed()


def oracle_logits(folder, tokens, sliding=None):
    """[tokens, vocabulary] of mlx-lm with the stored weights, computed in fp32. sliding: layers made to see config.json's
    window only."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    with mx.stream(mx.cpu):
        model, config = load_model(Path(folder))
        model.set_dtype(mx.float32)
        for i in sliding or []:
            model.model.layers[i] = windowed(model.model.layers[i], config["sliding_window"])
        return np.array(model(mx.array(np.asarray(tokens)[None]))[0].astype(mx.float32))


def backends():
    """Those of this build that run here."""
    if not (BUILD / "tests" / "eval_logits").exists():
        return ["cpu"]
    listed = subprocess.run([BUILD / "tests" / "eval_logits", "--backends"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "auto"]


def emulated():
    """Whether this build has the CUDA backend with its kernels compiled for the CPU."""
    return (BUILD / "tests" / "eval_logits_emulated").exists()


def our_logits(folder, tokens, scratch, environment=None, program="eval_logits"):
    given, result = Path(scratch) / "tokens", Path(scratch) / "logits"
    given.write_bytes(np.asarray(tokens, dtype=np.int32).tobytes())
    done = subprocess.run(
        [BUILD / "tests" / program, folder, given, result],
        capture_output=True,
        text=True,
        env={**os.environ, "MLXS_CACHE_DIR": str(Path(scratch) / "cache"), **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return np.fromfile(result, dtype=np.float32).reshape(len(tokens), -1)


def refusal(folder, scratch):
    """The one line with which a folder is refused."""
    given = Path(scratch) / "tokens"
    given.write_bytes(np.arange(4, dtype=np.int32).tobytes())
    done = subprocess.run(
        [BUILD / "tests" / "eval_logits", folder, given, Path(scratch) / "logits"],
        capture_output=True,
        text=True,
        env={**os.environ, "MLXS_CACHE_DIR": str(Path(scratch) / "cache")},
    )
    assert done.returncode == 1, done
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def distance(ours, reference):
    """Root mean square of the differences, in units of the reference's own spread over the vocabulary."""
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    spread = reference.std(axis=-1, keepdims=True)
    return float(np.sqrt((((ours - reference) / spread) ** 2).mean()))


def our_requests(folder, tokens, lengths, scratch, environment=None):
    """What eval_requests prints: one entry a request, the last of them the one that finds its prefix in the cache."""
    given = Path(scratch) / "tokens"
    given.write_bytes(np.asarray(tokens, dtype=np.int32).tobytes())
    done = subprocess.run(
        [BUILD / "tests" / "eval_requests", folder, given, *map(str, lengths)],
        capture_output=True,
        text=True,
        env={**os.environ, "MLXS_CACHE_DIR": str(Path(scratch) / "cache"), **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
