"""API keys: a server with a file of hashes and one in the environment, asked by clients with and without a key."""

import hashlib

import anthropic
import ollama
import openai
import pytest
import requests
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auth")
    keys = folder / "keys"
    keys.write_text(f"{hashlib.sha256(b'key-of-alice').hexdigest()} alice\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLXS_API_KEY", "key-of-ops")
        process = ServeProcess(MODEL, "--host", "0.0.0.0", "--api-keys", str(keys), cache=folder)
    process.url = process.url.replace("0.0.0.0", "127.0.0.1")
    yield process
    process.close()


def get(server, path, **headers):
    return requests.get(server.url + path, headers=headers, timeout=60)


def test_only_liveness_and_the_page_are_open(server):
    for path in ["/health/live", "/", "/page.js"]:
        assert get(server, path).status_code == 200, path
    for path in ["/health", "/health/ready", "/metrics", "/v1/scheduler/stats", "/v1/models", "/no/such/route"]:
        response = get(server, path)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert requests.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=60).status_code == 401


def test_both_headers_and_both_roles(server):
    for headers in [{"authorization": "Bearer key-of-alice"}, {"x-api-key": "key-of-alice"}]:
        assert get(server, "/v1/models", **headers).status_code == 200
        refused = get(server, "/metrics", **headers)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "permission_denied"
    assert get(server, "/metrics", authorization="Bearer key-of-ops").status_code == 200


def test_the_openai_package_with_a_right_and_a_wrong_key(server):
    def client(key):
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)

    model = client("key-of-alice").models.list().data[0].id
    answer = client("key-of-alice").completions.create(model=model, prompt="The", max_tokens=2)
    assert answer.usage.completion_tokens >= 1
    with pytest.raises(openai.AuthenticationError):
        client("key-of-bob").completions.create(model=model, prompt="The", max_tokens=2)
    with pytest.raises(openai.PermissionDeniedError):
        client("key-of-alice").get("/scheduler/stats", cast_to=object)


def test_a_wrong_key_file_stops_the_start(tmp_path):
    bad = tmp_path / "keys"
    bad.write_text("not-a-hash alice\n")
    result = run("serve", MODEL, "--port", "0", "--api-keys", str(bad), cache=tmp_path)
    assert (result.status, result.out) == (1, "")
    assert "line 1" in result.err


def test_refusals_read_as_the_dialect_has_them(server):
    def claude(key):
        return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=60)

    message = {"model": "any", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(anthropic.AuthenticationError) as refused:
        claude("key-of-bob").messages.create(**message)
    assert refused.value.body["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError) as refused:
        claude("key-of-alice").messages.create(**message)
    assert refused.value.body["error"]["type"] == "not_found_error"

    def llama(key):
        return ollama.Client(host=server.url, headers={"authorization": f"Bearer {key}"})

    with pytest.raises(ollama.ResponseError, match="not known") as refused:
        llama("key-of-bob").list()
    assert refused.value.status_code == 401
    assert llama("key-of-alice").list().models
    with pytest.raises(ollama.ResponseError, match="tenant 'alice' may not") as refused:
        llama("key-of-alice").pull("org/repo")
    assert refused.value.status_code == 403
    for method, path in [("GET", "/api/none"), ("GET", "/api/chat")]:
        answer = requests.request(method, server.url + path, headers={"x-api-key": "key-of-alice"}, timeout=60)
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)


def test_responses_are_their_tenants(server):
    def client(key):
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)

    model = client("key-of-alice").models.list().data[0].id
    made = client("key-of-alice").responses.create(model=model, input="Hello", max_output_tokens=2)
    assert client("key-of-alice").responses.retrieve(made.id).id == made.id
    for stranger in (client("key-of-ops").responses.retrieve, client("key-of-ops").responses.delete):
        with pytest.raises(openai.NotFoundError):
            stranger(made.id)
    with pytest.raises(openai.BadRequestError):
        client("key-of-ops").responses.create(model=model, input="Go on", previous_response_id=made.id)
