"""GGUF files of every family that llama.cpp has, of the weights of an mlx-lm model, against that model's own logits."""

import gguf
import gguf_files
import numpy as np
import pytest
import tiny
from test_families import BASE, BOUND, FAMILIES, MIXTURES, SLIDING, TOKENS, YARN, row_errors

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
def test_prefill_logits_are_those_of_the_folder(family, kind, tmp_path):
    folder = tiny.save(tmp_path / "model", CONFIGURATIONS[family], dtype="float32")
    file = gguf_files.write(folder, tmp_path / "model.gguf", TYPES[kind])
    slides = CONFIGURATIONS[family].get("sliding_window") and CONFIGURATIONS[family].get("use_sliding_window", True)
    reference = tiny.oracle_logits(folder, TOKENS, SLIDING.get(family) if slides else None)
    for isa in ("amx", "portable"):
        errors = row_errors(tiny.our_logits(file, TOKENS, tmp_path, {"MLXS_CPU_ISA": isa}), reference)
        total = np.median(errors) if family in MIXTURES else np.sqrt((errors**2).mean())
        print(f"{family} {kind} {isa}: {total:.1e}")
        assert total <= (3 if family in MIXTURES else 1) * BOUND[isa], isa
