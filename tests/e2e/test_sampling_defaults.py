"""How a model's makers want it sampled: `run` and `chat` do so unless a flag says otherwise."""

import shutil
import struct
from pathlib import Path

import pytest
import requests
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model
QUESTION = "Invent a word."
TEXT_VALUE, UINT32, FLOAT32 = 8, 4, 6


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def with_metadata(source: Path, target: Path, entries: dict) -> Path:
    """A copy of a GGUF file as version 2 (3 only added big-endian ones), with further metadata in front, as long as a
    multiple of its alignment."""
    added = b""
    for key, value in entries.items():
        added += text(key)
        added += struct.pack("<If", FLOAT32, value) if isinstance(value, float) else struct.pack("<II", UINT32, value)
    filler = text("test.filler") + struct.pack("<I", TEXT_VALUE)
    filler += text("x" * (-(len(added) + len(filler) + 8) % 32))
    with open(source, "rb") as file:
        magic, _, tensors, count = struct.unpack("<4sIQQ", file.read(24))
        with open(target, "wb") as copy:
            copy.write(struct.pack("<4sIQQ", magic, 2, tensors, count + len(entries) + 1) + added + filler)
            shutil.copyfileobj(file, copy, 1 << 24)
    return target


@pytest.fixture
def advised(tmp_path):
    """The model as if its makers wanted the likeliest token at a high temperature; what is no probability counts as not said."""
    entries = {"general.sampling.temp": 2.0, "general.sampling.top_k": 1, "general.sampling.top_p": 7.0}
    return str(with_metadata(Path(MODEL), tmp_path / "advised.gguf", entries))


def answer(model, *flags, cache):
    done = run("run", model, QUESTION, "--max-tokens", "16", "--seed", "1", "--json", *flags, cache=cache)
    assert done.status == 0, done.err
    return done.json()["text"], done.err


def test_run_follows_the_makers_and_a_flag_wins(advised, tmp_path):
    greedy, _ = answer(MODEL, "--temperature", "0", cache=tmp_path)
    text, log = answer(advised, cache=tmp_path)
    assert text == greedy
    assert "general.sampling.top_p is not" in log
    assert answer(advised, "--top-k", "0", cache=tmp_path)[0] != greedy
    assert answer(advised, "--top-k", "0", "--temperature", "0", cache=tmp_path)[0] == greedy
    # Without advice the default is a draw at 0.7.
    assert answer(MODEL, cache=tmp_path)[0] == answer(MODEL, "--temperature", "0.7", cache=tmp_path)[0]


def test_chat_does_the_same(advised, tmp_path):
    flags = ["--max-tokens", "16", "--seed", "1"]
    greedy = run("chat", MODEL, "--temperature", "0", *flags, cache=tmp_path, stdin=QUESTION + "\n")
    assert greedy.status == 0, greedy.err
    assert run("chat", advised, *flags, cache=tmp_path, stdin=QUESTION + "\n").out == greedy.out
    assert run("chat", advised, "--top-k", "0", *flags, cache=tmp_path, stdin=QUESTION + "\n").out != greedy.out


@pytest.fixture
def server(request, advised, tmp_path):
    server = ServeProcess(advised, *request.param, cache=tmp_path)
    yield server
    server.close()


def texts(server, **sampling):
    """The answer of each dialect to the question, with the same seed where the dialect has one."""
    url, asked = server.url, {"messages": [{"role": "user", "content": QUESTION}]}
    model = requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]
    options = {"seed": 1, "num_predict": 16, **sampling}

    def post(path, body):
        answer = requests.post(url + path, json={"model": model, **body}, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()

    openai = post("/v1/chat/completions", {**asked, "max_tokens": 16, "seed": 1, **sampling})
    anthropic = post("/v1/messages", {**asked, "max_tokens": 16, **sampling})
    ollama = post("/api/chat", {**asked, "stream": False, "options": options})
    responses = post("/v1/responses", {"input": QUESTION, "max_output_tokens": 16, **sampling})
    return {
        "openai": openai["choices"][0]["message"]["content"],
        "anthropic": anthropic["content"][0]["text"],
        "ollama": ollama["message"]["content"],
        "responses": responses["output"][-1]["content"][0]["text"],
    }, responses


@pytest.mark.parametrize("server", [("--sampling-defaults", "model")], indirect=True)
def test_serve_follows_the_makers_if_asked_to_and_a_request_wins(server):
    greedy, _ = texts(server, temperature=0)
    assert len(set(greedy.values())) == 1
    # The likeliest token of one is the likeliest, however hot.
    advised, responses = texts(server)
    assert advised == greedy
    assert (responses["temperature"], responses["top_p"]) == (2.0, 1.0)
    said, responses = texts(server, temperature=1, top_k=0)
    assert said["openai"] != greedy["openai"]
    assert said["ollama"] != greedy["ollama"]
    assert responses["temperature"] == 1.0


@pytest.mark.parametrize("server", [()], indirect=True)
def test_serve_keeps_what_its_dialects_document(server):
    greedy, _ = texts(server, temperature=0)
    drawn, responses = texts(server)
    assert drawn["openai"] != greedy["openai"]
    assert drawn["ollama"] != greedy["ollama"]
    assert (responses["temperature"], responses["top_p"]) == (1.0, 1.0)
