"""Every way to ask wrongly: the status, the field's name, the numbers; and the server goes on."""

import pytest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def error_of(response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def chat_body(api, **fields) -> dict:
    return {"model": api.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 1}, "min_p"),
        ({"top_k": -5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10_000}, "n"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stop_token_ids": [10_000_000]}, "stop_token_ids"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"seed": "lucky"}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
        ({"structured_outputs": {"choice": ["yes", 5]}}, "structured_outputs.choice[1]"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"poem": True}}, "structured_outputs.poem"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_regex"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
    ids=str,
)
def test_a_wrong_chat_field_is_named(api, fields, param):
    error = error_of(api.post(CHAT, chat_body(api, **fields)), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "invalid_argument"
    assert param.split(".")[0].split("[")[0] in error["message"]


def test_the_number_of_choices_that_is_possible_is_said(api):
    for n in (0, 129):
        assert "n must be 1 … 128" in error_of(api.post(CHAT, chat_body(api, n=n)), 400)["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, 10_000_000]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"best_of": 4}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 50}, "logprobs"),
    ],
    ids=str,
)
def test_a_wrong_completion_field_is_named(api, fields, param):
    body = {"model": api.model, "prompt": "hi", "max_tokens": 2, **fields}
    assert error_of(api.post(COMPLETIONS, body), 400)["param"] == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_names_both_numbers(api, stream):
    context = api.get(f"/v1/models/{api.model}").json()["max_model_len"]
    body = chat_body(api, messages=[{"role": "user", "content": "word " * (context + 100)}], stream=stream)
    error = error_of(api.post(CHAT, body), 400)
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    numbers = [int(word) for word in error["message"].replace(",", " ").split() if word.isdigit()]
    assert context in numbers
    assert max(numbers) > context


def test_prompt_and_answer_together_must_fit(api):
    context = api.get(f"/v1/models/{api.model}").json()["max_model_len"]
    for field in ("max_tokens", "max_completion_tokens"):
        body = chat_body(api)
        del body["max_tokens"]
        error = error_of(api.post(CHAT, {**body, field: context}), 400)
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == field


def test_an_unknown_model_is_told_from_those_there_are(api):
    error = error_of(api.post(CHAT, chat_body(api, model="gpt-5")), 404)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "gpt-5" in error["message"]
    assert api.model in error["message"]


def test_where_there_is_one_model_it_need_not_be_named(api):
    body = chat_body(api)
    del body["model"]
    assert api.post(CHAT, body).json()["model"] == api.model


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"", "byte 1"),
        (b"{", "byte 2"),
        (b'{"model":"x",}', "byte 14"),
        (b'{"a":1}\n{"b":2}', "line 2"),
        (b'{"a":"\xff"}', "byte 7"),
        (b"[" * 100_000, "nesting"),
    ],
    ids=["empty", "open", "comma", "two", "not utf-8", "deep"],
)
def test_what_is_not_json_is_located(api, body, position):
    response = api.get("/health")
    response = api.post(CHAT, None, data=body, headers={"content-type": "application/json"})
    error = error_of(response, 400)
    assert error["code"] == "invalid_json"
    assert position in error["message"]


def test_unknown_routes_and_methods(api):
    assert error_of(api.get("/v2/chat"), 404)["code"] == "not_found"
    wrong = api.get(CHAT)
    assert error_of(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"
    assert api.post("/v1/models", {}).headers["allow"] == "GET, HEAD"


def test_unknown_fields_are_accepted_with_a_warning(api):
    response = api.post(CHAT, chat_body(api, store=True, prediction={"a": "b"}, temprature=0))
    assert response.status_code == 200
    for name in ("store", "prediction", "temprature"):
        assert name in response.headers["x-mlxs-warning"]
    assert "x-mlxs-warning" not in api.post(CHAT, chat_body(api)).headers
    assert "temprature" in api.process.errors()


def test_a_body_over_the_limit_is_refused_before_it_is_read(api):
    with api.connect() as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"10485760" in answer


def test_a_body_just_over_the_limit_from_a_client_that_sends_it_all(api):
    body = b'{"prompt":"' + b"x" * (11 << 20) + b'"}'
    response = api.post(COMPLETIONS, None, data=body)
    assert error_of(response, 413)["code"] == "too_large"


def test_the_server_is_as_well_as_before(api):
    assert api.get("/health/ready").json()["ready"] is True
    assert api.chat(max_tokens=2)["usage"]["completion_tokens"] == 2
