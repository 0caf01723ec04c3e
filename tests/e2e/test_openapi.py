"""GET /openapi.json: valid, complete, and true of what the server takes, refuses and answers."""

import re
import sys
from pathlib import Path

import jsonschema
import openapi_spec_validator
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import api_page  # noqa: E402 - beside the other scripts

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
# One request of each kind; "model" is filled in.
GOOD = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": [[1, 2, 3]], "max_tokens": 1, "logprobs": 2, "stop": ["zzz"]},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1, "metadata": {"a": "b"}},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 1}, "stream": False},
    "/api/generate": {"prompt": "hi", "options": {"num_predict": 1}, "stream": False},
    "/api/show": {},
    "/tokenize": {"prompt": "hi", "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2]},
}
BAD = {
    "temperature": "warm",
    "max_tokens": 0,
    "stop": 5,
    "priority": "soon",
    "logit_bias": {"5": 200},
    "messages": "hi",
    "metadata": {"a": 1},
    "reasoning_effort": "some",
    "n": 1.5,
}


@pytest.fixture(scope="module")
def document(api):
    return api.get("/openapi.json").json()


def resolve(document, schema):
    """A schema that stands alone: with the named ones beside it."""
    return {**schema, "components": document["components"]}


def body_schema(document, path):
    return resolve(document, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def answer_schema(document, method, path, status=200):
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    return resolve(document, content["application/json"]["schema"])


def test_it_is_valid(document):
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1")


def test_the_page_of_the_api_is_the_servers_own(document):
    page = (ROOT / "docs" / "http-api.md").read_text()
    assert api_page.page(document) == page, "run `make docs`"
    for path, item in document["paths"].items():
        for method in item:
            assert f"### {method.upper()} {path}\n" in page


def test_every_route_is_there(document, api):
    message = api.get("/no/such/route").json()["error"]["message"].partition("there are")[2]
    routes = {tuple(pair) for pair in re.findall(r"(GET|POST|PUT|DELETE) (/\S*?)(?=,|\)| \()", message)}
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told - routes == {("GET", "/v1/responses/{id}/input_items")}
    assert routes - told == set()


def test_every_field_is_described(document):
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"] and {"400", "500"} <= operation["responses"].keys(), path
            if body := operation.get("requestBody"):
                for name, field in body["content"]["application/json"]["schema"]["properties"].items():
                    assert field.get("description"), (path, name)


@pytest.mark.parametrize("path", GOOD)
def test_what_it_allows_is_taken_and_answered_as_it_says(document, api, path):
    body = {"model": api.model, **GOOD[path]}
    jsonschema.validate(body, body_schema(document, path))
    response = api.post(path, body)
    assert response.status_code == 200, response.text
    jsonschema.validate(response.json(), answer_schema(document, "post", path))


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/ps", "/api/version", "/health", "/v1/requests"])
def test_answers_without_a_body(document, api, path):
    jsonschema.validate(api.get(path).json(), answer_schema(document, "get", path))


@pytest.mark.parametrize("field", BAD)
def test_what_it_forbids_is_refused(document, api, field):
    body = {"model": api.model, **CHAT, field: BAD[field]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, body_schema(document, "/v1/chat/completions"))
    response = api.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(field)
    jsonschema.validate(response.json(), answer_schema(document, "post", "/v1/chat/completions", 400))


def test_tokens_there_and_back(api):
    text = "Hello, wörld!"
    for prefix in ("", "/v1"):
        told = api.post(f"{prefix}/tokenize", {"prompt": text, "return_token_strs": True, "add_special_tokens": False}).json()
        assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
        assert api.post(f"{prefix}/detokenize", {"tokens": told["tokens"]}).json()["prompt"] == text
    chat = api.post("/tokenize", {"messages": CHAT["messages"]}).json()
    assert chat["count"] == api.chat("hi", max_tokens=1)["usage"]["prompt_tokens"]
    for body in ({}, {"prompt": "a", "messages": CHAT["messages"]}, {"prompt": 5}):
        assert api.post("/tokenize", body).status_code == 400
    assert "vocabulary" in api.post("/detokenize", {"tokens": [10**6]}).json()["error"]["message"]


def test_metadata_comes_back_in_the_requests_record(api):
    response = api.post("/v1/chat/completions", {**CHAT, "metadata": {"job": "night"}}, headers={"x-request-id": "labelled-1"})
    assert response.ok
    assert api.get("/v1/requests/labelled-1").json()["metadata"] == {"job": "night"}
