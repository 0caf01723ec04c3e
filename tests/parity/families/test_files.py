"""Model files as mlx-lm writes them: every storage form of a llama gives the logits that mlx-lm computes from it."""

import json
import shutil
from pathlib import Path

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


@pytest.mark.parametrize("backend", tiny.backends())
@pytest.mark.parametrize("form", FORMS)
def test_prefill_logits_match_mlx_lm(form, backend, tmp_path):
    options, bound = FORMS[form]
    folder = tiny.save(tmp_path / "model", LLAMA, **options)
    ours = tiny.our_logits(folder, TOKENS, tmp_path, {"MLXS_TEST_BACKEND": backend})
    error = tiny.distance(ours, tiny.oracle_logits(folder, TOKENS))
    print(f"{form}: rms error {error:.2e} of the logits' spread")
    assert ours.shape == (len(TOKENS), tiny.VOCABULARY)
    assert error <= bound


def test_layers_may_be_quantized_differently(tmp_path):
    def mixed(path, module):
        if path.endswith("down_proj"):
            return {"bits": 8, "group_size": 32, "mode": "affine"}
        return not path.endswith("o_proj")  # stays bf16

    quantization = {"bits": 4, "group_size": 64}
    folder = tiny.save(tmp_path / "model", LLAMA, quantization=quantization, predicate=mixed)
    stored = json.loads((folder / "config.json").read_text())["quantization"]
    assert stored["model.layers.1.mlp.down_proj"]["bits"] == 8
    error = tiny.distance(tiny.our_logits(folder, TOKENS, tmp_path), tiny.oracle_logits(folder, TOKENS))
    assert error <= 0.02


def test_shards_with_an_index(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = tiny.save(tmp_path / "model", {**LLAMA, "tie_word_embeddings": True}, dtype="float32")
    expected = tiny.our_logits(folder, TOKENS, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    where = {name: files[i % 3] for i, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({name: tensors[name] for name in where if where[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    assert np.array_equal(tiny.our_logits(folder, TOKENS, tmp_path), expected)
    index.unlink()  # mlx-lm reads model*.safetensors without one
    assert np.array_equal(tiny.our_logits(folder, TOKENS, tmp_path), expected)


def block_scaled(weight):
    """Codes and scales of blocks of 128 × 128, and the values that they stand for."""
    import mlx.core as mx

    rows, columns = weight.shape
    padded = mx.pad(weight, ((0, -rows % 128), (0, -columns % 128)))
    blocks = padded.reshape(padded.shape[0] // 128, 128, padded.shape[1] // 128, 128)
    scale = mx.abs(blocks).max(axis=(1, 3)) / 448.0
    codes = mx.to_fp8(blocks / scale[:, None, :, None])
    back = (mx.from_fp8(codes, dtype=mx.float32) * scale[:, None, :, None]).reshape(padded.shape)
    return codes.reshape(padded.shape)[:rows, :columns], scale, back[:rows, :columns]


def save_fp8(folder, tensors, chosen):
    """tensors with those chosen as block-scaled FP8, as DeepSeek and Qwen publish it; returns the values that are left."""
    import mlx.core as mx

    plain, scaled = {}, {}
    for name, weight in tensors.items():
        plain[name] = scaled[name] = weight
        if chosen(name):
            scaled[name], scaled[name + "_scale_inv"], plain[name] = block_scaled(weight)
    mx.save_safetensors(str(folder / "model.safetensors"), scaled)
    rename_type(folder / "model.safetensors", "U8", "F8_E4M3")
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    change(folder / "config.json", quantization_config=quantization)
    (folder / "model.safetensors.index.json").unlink()
    return plain


def test_block_scaled_fp8(tmp_path):
    """The oracle reads the blocks multiplied out."""
    import mlx.core as mx

    folder = tiny.save(tmp_path / "model", {**LLAMA, "intermediate_size": 320}, dtype="float32")
    multiplied = Path(shutil.copytree(folder, tmp_path / "multiplied"))
    plain = save_fp8(folder, mx.load(str(folder / "model.safetensors")), lambda name: "_proj" in name)
    mx.save_safetensors(str(multiplied / "model.safetensors"), plain)
    expected = tiny.oracle_logits(multiplied, TOKENS)
    assert tiny.distance(tiny.our_logits(folder, TOKENS, tmp_path), expected) <= 0.02


DEEPSEEK = {
    **LLAMA,
    "model_type": "deepseek_v3",
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "kv_lora_rank": 128,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
}


def as_published(tensors, heads, experts):
    """mlx-lm's tensors of a deepseek_v3 under the names and in the shapes of the hub, with a block that drafts tokens."""
    import mlx.core as mx

    published = {}
    for name, weight in tensors.items():
        base = name.rsplit(".", 2)[0]
        if "embed_q" in name:
            values = tensors[name.replace("embed_q", "unembed_out")]
            both = mx.concatenate([weight.swapaxes(1, 2), values], axis=1)
            published[base + ".kv_b_proj.weight"] = mx.contiguous(both.reshape(heads * both.shape[1], -1))
        elif "switch_mlp" in name:
            for i in range(experts):
                published[name.replace("switch_mlp", f"experts.{i}")] = mx.contiguous(weight[i])
        elif "unembed_out" not in name:
            published[name] = weight
    drafts = {k.replace("layers.2.", "layers.3."): v for k, v in published.items() if "layers.2." in k}
    drafts |= {"model.layers.3.eh_proj.weight": mx.zeros((128, 256)), "model.layers.3.enorm.weight": mx.ones(128)}
    return published | drafts


@pytest.mark.parametrize("fp8", [False, True], ids=["f32", "fp8"])
def test_deepseek_as_published(fp8, tmp_path):
    import mlx.core as mx

    folder = tiny.save(tmp_path / "model", DEEPSEEK, dtype="float32")
    multiplied = Path(shutil.copytree(folder, tmp_path / "multiplied"))
    published = as_published(mx.load(str(folder / "model.safetensors")), 4, 4)
    change(folder / "config.json", num_nextn_predict_layers=1)
    if fp8:
        left = save_fp8(folder, published, lambda name: "_proj" in name and "layernorm" not in name)
    else:
        left = published
        mx.save_safetensors(str(folder / "model.safetensors"), published)
        (folder / "model.safetensors.index.json").unlink()
    kept = {name: weight for name, weight in left.items() if "layers.3." not in name}
    mx.save_safetensors(str(multiplied / "model.safetensors"), kept)  # the oracle takes these names too
    ours = tiny.our_logits(folder, TOKENS, tmp_path, {"MLXS_CPU_ISA": "portable"})
    assert tiny.distance(ours, tiny.oracle_logits(multiplied, TOKENS)) <= 0.015


GPT_OSS = {
    **LLAMA,
    "model_type": "gpt_oss",
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 4,
    "sliding_window": 24,
    "rope_scaling": None,
    "layer_types": ["sliding_attention", "full_attention"],
}


def in_turn(first, second):
    """Rows of two stacks of matrices, one of each in turn."""
    import mlx.core as mx

    return mx.stack([first, second], axis=2).reshape(first.shape[0], -1, *first.shape[2:])


def test_gpt_oss_as_published(tmp_path):
    """MXFP4 blocks and their scales in tensors of their own, gate and up in turn."""
    import mlx.core as mx

    fp4 = {"bits": 4, "group_size": 32, "mode": "mxfp4"}
    folder = tiny.save(tmp_path / "model", GPT_OSS, quantization=fp4, predicate=lambda path, _: "experts" in path)
    expected = tiny.oracle_logits(folder, TOKENS)
    tensors = mx.load(str(folder / "model.safetensors"))
    published = {name: weight for name, weight in tensors.items() if "experts" not in name}
    for layer in range(2):
        base = f"model.layers.{layer}.mlp.experts."
        for name in ("weight", "scales", "bias"):
            both = in_turn(tensors[f"{base}gate_proj.{name}"], tensors[f"{base}up_proj.{name}"])
            for part, weight in (("gate_up_proj", both), ("down_proj", tensors[f"{base}down_proj.{name}"])):
                if name == "weight":
                    weight = mx.contiguous(weight).view(mx.uint8)
                    published[f"{base}{part}_blocks"] = weight.reshape(*weight.shape[:2], -1, 16)
                else:
                    published[f"{base}{part}_{name}"] = mx.contiguous(weight)
    mx.save_safetensors(str(folder / "model.safetensors"), published)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "config.json").write_text(json.dumps({**GPT_OSS, "quantization_config": {"quant_method": "mxfp4"}}))
    for isa, bound in (("amx", 0.04), ("portable", 0.015)):
        ours = tiny.our_logits(folder, TOKENS, tmp_path, {"MLXS_CPU_ISA": isa})
        assert tiny.distance(ours, expected) <= bound, isa


def rename_type(path, old, new):
    """numpy and mlx have no FP8 arrays: what they saved as bytes is given its name in the header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(f'"{old}"'.encode(), f'"{new}"'.encode())
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("saved") / "model", LLAMA, dtype="float32")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_refuses_a_folder_without_tokenizer_json(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    assert f"{folder}: tokenizer.json is missing (download the whole repository" in tiny.refusal(folder, tmp_path)


def test_refuses_a_damaged_tokenizer_json(folder, tmp_path):
    (folder / "tokenizer.json").write_text('{"model": 5}')
    assert "tokenizer.json" in tiny.refusal(folder, tmp_path)


def test_names_missing_and_extra_tensors_and_wrong_shapes(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    (folder / "model.safetensors.index.json").unlink()

    def refusal(changed):
        save_file(changed, weights)
        return tiny.refusal(folder, tmp_path)

    without = {name: value for name, value in tensors.items() if "layers.1.mlp.up_proj" not in name}
    assert "tensor 'model.layers.1.mlp.up_proj.weight' is missing" in refusal(without)
    extra = {**tensors, "model.layers.0.self_attn.q_proj.bias": np.zeros(128, np.float32)}
    assert "1 tensor(s) have no place in the architecture 'llama': model.layers.0.self_attn.q_proj.bias" in refusal(extra)
    wrong = {**tensors, "model.norm.weight": np.zeros(64, np.float32)}
    assert "tensor 'model.norm.weight' has shape [64], the configuration asks for [128]" in refusal(wrong)


def test_refuses_an_unknown_architecture(folder, tmp_path):
    change(folder / "config.json", model_type="zebra")
    message = tiny.refusal(folder, tmp_path)
    assert "model_type 'zebra' is not supported (supported: llama, " in message


def test_refuses_a_tokenizer_of_another_model(folder, tmp_path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = max(token["id"] for token in tokenizer["added_tokens"])
    tokenizer["added_tokens"] += [{**tokenizer["added_tokens"][0], "id": last + i, "content": f"<{i}>"} for i in range(1, 200)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "tokens, the embedding 320 rows" in tiny.refusal(folder, tmp_path)
