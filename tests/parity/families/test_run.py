"""A folder as mlx-lm saves it, through the program: prompt, template, answer and end are what tokenizers and mlx-lm say."""

import json
import os
import subprocess

import numpy as np
import pytest
import tiny
from test_files import LLAMA

TEMPLATE = "{% for m in messages %}{{ bos_token }}<|im_start|>{{ m.content }}<|im_end|>{{ eos_token }}{% endfor %}"
PROMPT = "the quick brown héllo"


@pytest.fixture
def folder(tmp_path):
    folder = tiny.save(tmp_path / "tiny-llama", LLAMA, dtype="float32", seed=3)
    tiny.write_tokenizer(folder, template=TEMPLATE)
    return folder


def run(folder, *arguments):
    environment = {**os.environ, "MLXS_CACHE_DIR": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1"}
    greedily = [] if "--seed" in arguments else ["--temperature", "0"]
    command = [os.environ["MLXS_BIN"], "run", folder, PROMPT, "--json", *greedily, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def greedy(folder, tokens, count):
    for _ in range(count):
        tokens = [*tokens, int(tiny.oracle_logits(folder, tokens)[-1].argmax())]
    return tokens[-count:]


def tokenizer_of(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_answers_as_mlx_lm_does(folder):
    tokenizer = tokenizer_of(folder)
    prompt = tokenizer.encode(PROMPT).ids
    result = run(folder, "--raw", "--max-tokens", "5")
    assert result["model"] == "tiny-llama"
    assert result["usage"]["prompt_tokens"] == len(prompt)
    assert result["text"] == tokenizer.decode(greedy(folder, prompt, 5))
    assert result["finish_reason"] == "length"


def test_the_template_of_the_folder_is_used(folder):
    prompt = tokenizer_of(folder).encode(f"<s><|im_start|>{PROMPT}<|im_end|></s>").ids
    result = run(folder, "--max-tokens", "3")
    assert result["usage"]["prompt_tokens"] == len(prompt)
    assert result["text"] == tokenizer_of(folder).decode(greedy(folder, prompt, 3))


def test_every_end_of_generation_config_ends_the_answer(folder):
    answer = greedy(folder, tokenizer_of(folder).encode(PROMPT).ids, 3)
    never = next(i for i in range(300) if i not in answer)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [never, answer[2]]}))
    result = run(folder, "--raw", "--max-tokens", "8")
    assert result["finish_reason"] == "stop"
    # The end token is counted, not shown; the same id earlier would have ended it earlier.
    assert result["usage"]["generated_tokens"] == 1 + answer.index(answer[2])


def test_sampling_is_as_the_makers_advise_unless_a_flag_says_otherwise(folder):
    answer = tokenizer_of(folder).decode(greedy(folder, tokenizer_of(folder).encode(PROMPT).ids, 8))
    advice = folder / "generation_config.json"
    advice.write_text(json.dumps({"temperature": 2.0, "top_k": 1, "top_p": 7}))
    arguments = ["--raw", "--max-tokens", "8", "--seed", "5"]
    assert run(folder, *arguments)["text"] == answer  # the likeliest of one; what is no probability counts as not said
    assert run(folder, *arguments, "--top-k", "0")["text"] != answer
    advice.write_text(json.dumps({"temperature": 0}))
    assert run(folder, *arguments)["text"] == answer


def test_a_second_load_maps_the_packed_weights(folder):
    run(folder, "--raw", "--max-tokens", "1")
    (packed,) = (folder.parent / "cache" / "packed").iterdir()
    before = packed.stat().st_mtime_ns
    run(folder, "--raw", "--max-tokens", "1")
    assert packed.stat().st_mtime_ns == before
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    run(folder, "--raw", "--max-tokens", "1")
    assert len(list((folder.parent / "cache" / "packed").iterdir())) >= 1
    assert {p.name for p in (folder.parent / "cache" / "packed").iterdir()} != {packed.name}


def test_tokens_that_the_model_has_no_row_for_are_refused(folder):
    tokenizer = tokenizer_of(folder)
    while tokenizer.get_vocab_size() < tiny.VOCABULARY:
        tokenizer.add_special_tokens([f"<spare {tokenizer.get_vocab_size()}>"])
    tokenizer.add_special_tokens(["<image>"])
    assert tokenizer.token_to_id("<image>") == tiny.VOCABULARY
    tokenizer.save(str(folder / "tokenizer.json"))
    environment = {**os.environ, "MLXS_CACHE_DIR": str(folder.parent / "cache")}
    command = [os.environ["MLXS_BIN"], "run", folder, "an <image>", "--raw"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"the prompt holds '<image>' (token {tiny.VOCABULARY}), which 'tiny-llama' has no embedding for" in done.stderr
    assert np.isfinite(tiny.our_logits(folder, [1, 2], folder.parent)).all()
