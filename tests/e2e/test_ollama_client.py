"""The ollama package, unchanged, against the server: chat, generate, models, options, errors, in streams and whole."""

import json
from datetime import UTC, datetime

import jsonschema
import ollama
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
LONG = [{"role": "user", "content": "Count from one to one hundred in words."}]
GREEDY = {"temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"zip": {"type": "integer", "minimum": 1, "maximum": 99}, "city": {"enum": ["Paris", "Rome"]}},
    "required": ["zip", "city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(api):
    return ollama.Client(host=api.url, timeout=120)


def test_a_chat_says_what_the_openai_route_says(client, api):
    answer = client.chat(api.model, FRANCE, options={**GREEDY, "num_predict": 20})
    same = api.chat(FRANCE[0]["content"], temperature=0, max_tokens=20)
    assert answer.message.role == "assistant"
    assert answer.message.content == same["choices"][0]["message"]["content"]
    assert answer.model == api.model
    assert answer.done
    assert answer.done_reason == "stop"
    assert answer.prompt_eval_count == same["usage"]["prompt_tokens"]
    assert answer.eval_count == same["usage"]["completion_tokens"]


def test_times_are_measured(client, api):
    before = datetime.now(UTC)
    answer = client.chat(api.model, LONG, options={"num_predict": 12})
    after = datetime.now(UTC)
    whole = (after - before).total_seconds() * 1e9
    assert answer.prompt_eval_duration > 0
    assert answer.eval_duration > 0
    assert answer.load_duration == 0, "the model was there"
    assert answer.prompt_eval_duration + answer.eval_duration <= answer.total_duration <= whole
    assert before <= datetime.fromisoformat(answer.created_at[:26] + "+00:00") <= after
    shorter = client.chat(api.model, LONG, options={"num_predict": 1})
    assert shorter.eval_count == 1


def test_a_stream_says_the_same_as_the_chat(client, api):
    options = {**GREEDY, "num_predict": 8}
    whole = client.chat(api.model, LONG, options=options)
    parts = list(client.chat(api.model, LONG, options=options, stream=True))
    assert len(parts) > 4
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(part.eval_count is None for part in parts[:-1])
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count) == ("length", 8)


def test_streaming_is_the_default_of_the_wire(api):
    response = api.post("/api/chat", {"model": api.model, "messages": LONG, "options": {"num_predict": 3}})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert lines[-1]["done"] is True
    assert not any(line["done"] for line in lines[:-1])


def test_generate_is_a_chat_of_one_message(client, api):
    options = {**GREEDY, "num_predict": 20}
    chat = client.chat(api.model, [{"role": "system", "content": "Be brief."}, *FRANCE], options=options)
    answer = client.generate(api.model, FRANCE[0]["content"], system="Be brief.", options=options)
    assert answer.response == chat.message.content
    assert answer.prompt_eval_count == chat.prompt_eval_count
    parts = client.generate(api.model, FRANCE[0]["content"], system="Be brief.", options=options, stream=True)
    assert "".join(part.response for part in parts) == answer.response


def test_raw_is_a_completion(client, api):
    answer = client.generate(api.model, "Once upon a time", raw=True, options={**GREEDY, "num_predict": 10, "top_k": 1})
    assert answer.response == api.complete("Once upon a time", temperature=0, max_tokens=10)["choices"][0]["text"]


def test_options_reach_the_sampler(client, api):
    def say(**options):
        return client.chat(api.model, LONG, options={"num_predict": 12, **options}).message.content

    greedy = say(temperature=0)
    assert say(temperature=2, top_k=1) == greedy
    assert say(temperature=2, top_p=1e-6) == greedy
    assert say(temperature=2, min_p=0.999) == greedy
    assert say(temperature=1.5, seed=1, top_k=0, top_p=1) == say(temperature=1.5, seed=1, top_k=0, top_p=1)
    assert len({say(temperature=1.5, seed=seed, top_k=0, top_p=1) for seed in range(4)}) > 1
    penalized = api.chat(LONG[0]["content"], temperature=0, max_tokens=12, repetition_penalty=5.0)
    assert say(temperature=0, repeat_penalty=5.0) == penalized["choices"][0]["message"]["content"]
    stop = greedy[4:8]
    assert say(temperature=0, stop=[stop]) == greedy[: greedy.index(stop)]


def test_num_ctx_bounds_prompt_and_answer(client, api):
    prompt = client.chat(api.model, LONG, options={"num_predict": 1}).prompt_eval_count
    answer = client.chat(api.model, LONG, options={**GREEDY, "num_ctx": prompt + 5, "num_predict": 400})
    assert (answer.eval_count, answer.done_reason) == (5, "length")
    with pytest.raises(ollama.ResponseError, match=f"{prompt} tokens") as refused:
        client.chat(api.model, LONG, options={"num_ctx": prompt})
    assert refused.value.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_format_is_obeyed(client, api, stream):
    def say(form):
        answer = client.chat(api.model, FRANCE, format=form, stream=stream, options={"temperature": 2, "num_predict": 200})
        return "".join(part.message.content for part in answer) if stream else answer.message.content

    value = json.loads(say(SCHEMA))
    jsonschema.validate(value, SCHEMA)
    assert list(value) == ["zip", "city"], "in the order of the schema"
    assert client.generate(api.model, "a", format="json", options={**GREEDY, "num_predict": 1}).response.startswith("{")


def test_tools_of_python_functions_are_shown(client, api):
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
          city: The city's name
        """
        return city

    plain = client.chat(api.model, FRANCE, options={"num_predict": 1})
    shown = client.chat(api.model, FRANCE, tools=[get_weather], options={"num_predict": 1})
    assert shown.prompt_eval_count > plain.prompt_eval_count + 20
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [
        *FRANCE,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "Snow."},
    ]
    answer = client.chat(api.model, turns, tools=[get_weather], options={**GREEDY, "num_predict": 20})
    assert answer.prompt_eval_count > shown.prompt_eval_count + 10
    assert answer.message.content or answer.message.tool_calls


def test_log_probabilities(client, api):
    answer = client.chat(api.model, FRANCE, logprobs=True, top_logprobs=2, options={**GREEDY, "num_predict": 3})
    same = api.chat(FRANCE[0]["content"], temperature=0, max_tokens=3, logprobs=True, top_logprobs=2)
    expected = same["choices"][0]["logprobs"]["content"]
    assert [token.token for token in answer.logprobs] == [token["token"] for token in expected]
    for ours, theirs in zip(answer.logprobs, expected, strict=True):
        assert ours.logprob == pytest.approx(theirs["logprob"], abs=1e-3)
        assert [other.token for other in ours.top_logprobs] == [other["token"] for other in theirs["top_logprobs"]]


def test_models_are_listed_shown_and_running(client, api):
    (listed,) = [model for model in client.list().models if model.model == api.model]
    (running,) = client.ps().models
    shown = client.show(api.model)
    loaded = api.get("/v1/models").json()["data"][0]
    assert len(listed.digest) == 64
    assert listed.size > 10_000_000
    assert listed.modified_at < datetime.now(UTC)
    assert listed.details == running.details == shown.details
    assert listed.details.format == "gguf"
    assert listed.details.family == loaded["architecture"]
    assert listed.details.quantization_level == loaded["quantization"]
    assert listed.details.parameter_size == f"{loaded['parameters'] / 1e6:.2f}M"
    assert (running.name, running.digest) == (api.model, listed.digest)
    assert running.context_length == loaded["max_model_len"]
    assert running.expires_at.year > 2200, "it was loaded by serve"
    assert shown.modelinfo["general.architecture"] == loaded["architecture"]
    assert shown.modelinfo[f"{loaded['architecture']}.context_length"] == loaded["max_model_len"]
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert "messages" in shown.template
    assert {"completion", "tools"} <= set(shown.capabilities)
    verbose = api.post("/api/show", {"model": api.model, "verbose": True}).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 1000


def test_version_and_latest(client, api):
    assert api.get("/api/version").json()["version"]
    assert client.generate(f"{api.model}:latest", "a", options={"num_predict": 1}).model == f"{api.model}:latest"


def test_without_a_prompt_the_model_is_loaded(client, api):
    assert client.generate(api.model).done_reason == "load"
    assert client.chat(api.model).message.content == ""
    raw = api.post("/api/generate", {"model": api.model, "keep_alive": "10m", "prompt": "a", "options": {"num_predict": 1}})
    assert "keep_alive" in raw.headers["x-mlxs-warning"]


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("chat", {"options": {"temperature": 3}}, "options.temperature"),
        ("chat", {"options": {"top_p": 0}}, "top_p"),
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat"),
        ("chat", {"options": {"stop": [""]}}, "options.stop[0]"),
        ("chat", {"options": {"num_predict": "many"}}, "options.num_predict"),
        ("chat", {"options": 1}, "options"),
        ("chat", {"format": "xml"}, "format"),
        ("chat", {"format": {"type": "no-such-type"}}, "grammar"),
        ("chat", {"think": True}, "does not support thinking"),
        ("chat", {"think": "much"}, "think"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "user", "content": [1]}]}, "messages[0].content"),
        ("chat", {"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "messages[0].images"),
        ("chat", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ("chat", {"top_logprobs": 2}, "top_logprobs"),
        ("chat", {"model": ""}, "model"),
        ("generate", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
        ("generate", {"prompt": "a", "context": [1, 2]}, "context"),
        ("generate", {"prompt": "a", "images": ["aGk="]}, "images"),
        ("generate", {"prompt": "a", "raw": True, "system": "b"}, "raw"),
        ("generate", {"prompt": 1}, "prompt"),
    ],
)
def test_wrong_requests_are_refused_with_the_name(api, path, fields, named):
    response = api.post(f"/api/{path}", {"model": api.model, "messages": FRANCE, **fields})
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]
    assert named in response.json()["error"]


def test_what_is_not_there(client, api):
    for ask in (lambda name: client.chat(name, FRANCE), client.show, lambda name: client.generate(name, "a")):
        for name in ("no-such-model", "/etc/passwd", "../models"):
            with pytest.raises(ollama.ResponseError, match="not found") as refused:
                ask(name)
            assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not JSON") as refused:
        client._request(ollama.ChatResponse, "POST", "/api/chat", content=b"{")
    assert refused.value.status_code == 400


def test_fields_that_change_nothing_are_named(api):
    options = {"num_gpu": 1, "repeat_last_n": 64, "no_such_option": 1, "num_predict": 1, "num_ctx": 1 << 20}
    body = {"model": api.model, "messages": FRANCE, "options": options, "no_such_field": 1, "stream": False}
    warning = api.post("/api/chat", body).headers["x-mlxs-warning"]
    for name in ("num_gpu", "repeat_last_n", "no_such_option", "no_such_field", "num_ctx"):
        assert name in warning


def test_a_tools_result_without_a_call_is_read_like_any_other(client, api):
    answer = client.chat(api.model, [{"role": "tool", "content": "5"}, *FRANCE], options={**GREEDY, "num_predict": 2})
    assert answer.done


def test_headers_are_checked_where_nothing_is_generated(api):
    response = api.post("/api/chat", {"model": api.model}, headers={"x-priority": "soon"})
    assert response.status_code == 400 and "x-priority" in response.text
