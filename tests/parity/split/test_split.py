"""A GGUF split by the gguf package's own writer gives the logits of the whole file."""

import os
import subprocess
from pathlib import Path

import gguf
import numpy as np

MODEL = Path(os.environ["MLXS_TEST_MODEL"])
EVAL = Path(os.environ["MLXS_BUILD_DIR"]) / "tests" / "eval_logits"


def split(source, target, tensors_each):
    reader = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(target, "llama", split_max_tensors=tensors_each)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model, scratch):
    tokens, out = scratch / "tokens", scratch / "logits"
    tokens.write_bytes(np.arange(100, 116, dtype=np.int32).tobytes())
    environment = {**os.environ, "MLXS_CACHE_DIR": str(scratch / "cache")}
    subprocess.run([EVAL, model, tokens, out], check=True, env=environment)
    return np.fromfile(out, dtype=np.float32)


def test_a_split_model_is_the_whole_model(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    split(MODEL, folder / "smollm2.gguf", 100)
    assert sorted(p.name for p in folder.iterdir()) == [f"smollm2-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert np.array_equal(logits(folder, tmp_path), logits(MODEL, tmp_path))
