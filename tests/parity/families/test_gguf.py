"""GGUF files of every family that llama.cpp has, of the weights of an mlx-lm model, against that model's own logits."""

import json

import gguf
import gguf_files
import numpy as np
import pytest
import tiny
from test_families import BASE, BOUND, EMULATED, FAMILIES, MIXTURES, PATHS, SLIDING, TOKENS, YARN, logits_on, row_errors

Type = gguf.GGMLQuantizationType
TYPES = {"f32": Type.F32, "q8_0": Type.Q8_0, "mxfp4": Type.MXFP4}
# What llama.cpp's files cannot say, and its loaders take for granted.
FIXED = {
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "gemma2": {"query_pre_attn_scalar": 64},
    "gemma3": {"sliding_window_pattern": 6},
    "deepseek_v3": {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "deepseek_v3-all": {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "qwen3_moe": {"mlp_only_layers": []},
    "qwen3_moe-all": {"mlp_only_layers": []},
}
UNSAID = {"llama-dynamic", "deepseek_v3-dense"}
CONFIGURATIONS = {name: {**BASE, **config, **FIXED.get(name, {})} for name, config in FAMILIES.items() if name not in UNSAID}


CASES = [(name, kind) for name in CONFIGURATIONS for kind in ("f32", "q8_0")]
CASES += [("gpt_oss", "mxfp4"), ("gpt_oss-all", "mxfp4")]  # as it is published


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_prefill_logits_are_those_of_the_folder(family, kind, tmp_path, record_property):
    config = CONFIGURATIONS[family]
    folder = tiny.save(tmp_path / "model", config, dtype="float32")
    file = gguf_files.write(folder, tmp_path / "model.gguf", TYPES[kind])
    slides = config.get("sliding_window") and config.get("use_sliding_window", True)
    reference = tiny.oracle_logits(folder, TOKENS, SLIDING.get(family) if slides else None)
    worst = {}
    paths = [path for path in PATHS if path not in (("cpu", "avx512"), ("cpu", "avx2"))]
    for path in paths + (EMULATED if kind != "f32" else []):
        errors = row_errors(logits_on(path, file, TOKENS, tmp_path), reference)
        total = np.median(errors) if family in MIXTURES else np.sqrt((errors**2).mean())
        worst["/".join(path)] = float(total)
    print(family, kind, {k: f"{v:.1e}" for k, v in worst.items()})
    record_property("result", json.dumps({"family": family, "format": kind, "errors": worst}))
    room = 3 if family in MIXTURES else 1
    assert all(error <= room * BOUND[path.split("/")[1]] for path, error in worst.items()), worst
