"""`serve mock:…`: the server without a model behind it, for its clients and for what lies between."""

import json
import re
import time

import pytest
import requests
from program import ServeProcess, needs_program, run

pytestmark = needs_program


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    process = ServeProcess("--model", "mock:tokens=40", cache=tmp_path_factory.mktemp("mock"))
    yield process
    process.close()


def chat(server, **fields):
    body = {"model": "mock", "messages": [{"role": "user", "content": "Anything"}], **fields}
    return requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_it_says_its_words_and_ends_where_it_was_told(server):
    answer = chat(server).json()
    text = answer["choices"][0]["message"]["content"]
    assert text.startswith(" The quick brown fox jumps over the lazy dog, then rests under an ö old\n oak. The quick")
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 41  # with the token that ends it
    short = chat(server, max_tokens=3).json()
    assert short["choices"][0]["message"]["content"] == " The quick brown"
    assert short["choices"][0]["finish_reason"] == "length"


def test_every_parameter_counts_as_for_a_model(server):
    answer = chat(server, stop=["fox"], n=2, logprobs=True, top_logprobs=1).json()
    assert [c["message"]["content"] for c in answer["choices"]] == [" The quick brown "] * 2
    assert chat(server, temperature=3).status_code == 400
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    response = chat(server, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert isinstance(json.loads(response.json()["choices"][0]["message"]["content"])["a"], bool)


def test_the_delay_is_a_steps(tmp_path):
    process = ServeProcess("mock:tokens=10,delay=30", cache=tmp_path)
    try:
        started = time.monotonic()
        assert chat(process).status_code == 200
        assert time.monotonic() - started > 10 * 0.03
    finally:
        process.close()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("mock:tokens=0", "tokens = '0'"), ("mock:delay=x", "delay = 'x'"), ("mock:speed=2", "'speed' is not an option")],
)
def test_a_wrong_mock_is_refused_by_name(tmp_path, name, complaint):
    result = run("serve", name, "--port", "0", cache=tmp_path)
    assert (result.status, result.out) == (1, "")
    assert complaint in result.err


def test_clients_cannot_ask_for_mocks_of_their_own(server):
    response = requests.post(f"{server.url}/api/chat", json={"model": "mock:tokens=9", "messages": []}, timeout=60)
    assert response.status_code == 404
    assert chat(server, model="mock:tokens=9").status_code == 404


def test_tokens_are_sent_together_where_that_is_asked_for(tmp_path):
    process = ServeProcess("mock:tokens=41,delay=2", "--token-batch", "10", cache=tmp_path)
    try:
        whole = chat(process).json()["choices"][0]["message"]["content"]
        response = chat(process, stream=True)
        events = [json.loads(e) for e in re.findall(r"^data: (\{.*)$", response.text, re.M)]
        pieces = [e["choices"][0]["delta"].get("content") for e in events]
        pieces = [p for p in pieces if p]
        assert "".join(pieces) == whole
        assert pieces[0] == " The"  # the first never waits
        assert len(pieces) == 5
        with_logprobs = chat(process, stream=True, logprobs=True)
        assert with_logprobs.text.count('"logprobs":{') == 41
    finally:
        process.close()
