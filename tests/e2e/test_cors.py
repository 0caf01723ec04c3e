"""Web pages of other origins: as a browser would ask, with and without origins that are let in."""

import pytest
import requests
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model

PAGE = "https://chat.example"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cors")
    process = ServeProcess(MODEL, "--cors-origin", PAGE, "--cors-origin", "http://localhost:3000", cache=cache)
    yield process
    process.close()


def preflight(url: str, origin: str) -> requests.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    return requests.options(url, headers=headers, timeout=60)


def ask(server, origin: str, **fields) -> requests.Response:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **fields}
    return requests.post(server.url + CHAT, json=body, headers={"origin": origin}, timeout=120)


def test_a_preflight_lets_the_request_follow(server):
    answer = preflight(server.url + CHAT, PAGE)
    assert answer.status_code == 204
    assert answer.content == b""
    assert "content-length" not in answer.headers
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize("stream", [False, True])
def test_answers_and_errors_can_be_read_by_the_page(server, stream):
    for fields, status in [({}, 200), ({"temperature": 9}, 400)]:
        answer = ask(server, PAGE, stream=stream, **fields)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "origin"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_a_page_elsewhere_is_kept_out(server):
    for answer in [preflight(server.url + CHAT, "https://evil.example"), ask(server, "https://evil.example")]:
        assert answer.status_code == 403
        assert "https://evil.example" in answer.json()["error"]["message"]
        assert "access-control-allow-origin" not in answer.headers


def test_the_servers_own_page_needs_no_leave(server):
    answer = ask(server, server.url)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_without_the_option_no_page_elsewhere_is_let_in(api):
    assert preflight(api.url + CHAT, PAGE).status_code == 403
    assert ask(api.process, PAGE).status_code == 403
    assert ask(api.process, api.url).status_code == 200


def test_what_is_no_origin_stops_the_start(tmp_path):
    result = run("serve", MODEL, "--port", "0", "--cors-origin", "chat.example", cache=tmp_path)
    assert (result.status, result.out) == (1, "")
    assert "chat.example" in result.err
