"""The bytes on the wire: framing of events, connections that are kept, what is no HTTP at all."""

import http.client
import json
import socket

import pytest

CHAT = "/v1/chat/completions"


def chat_body(api, **fields) -> bytes:
    messages = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": api.model, "messages": messages, "max_tokens": 8, **fields}).encode()


def test_events_are_framed_as_the_standard_says(api):
    response = api.post(CHAT, json.loads(chat_body(api, stream=True, stream_options={"include_usage": True})))
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    blocks = response.content.decode().split("\n\n")
    assert blocks.pop() == ""  # the last event is complete
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks[-1] == "data: [DONE]"
    events = [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"][0]["delta"] == {}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] <= 8


def test_tokens_come_one_by_one(api):
    with api.connect() as connection:
        body = chat_body(api, stream=True, max_tokens=200, ignore_eos=True)
        connection.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        pieces = []
        while b"[DONE]" not in b"".join(pieces[-2:]):
            pieces.append(connection.recv(65536))
            assert pieces[-1]
    assert len(pieces) > 20  # not one block at the end


def test_a_connection_serves_many_requests(api):
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    connection.connect()
    local = connection.sock.getsockname()
    for path, body in [("/health", None), (CHAT, chat_body(api)), (CHAT, chat_body(api, stream=True)), ("/nowhere", None)]:
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        response.read()
        assert response.status == (404 if path == "/nowhere" else 200)
        assert connection.sock is not None
        assert connection.sock.getsockname() == local
    connection.close()


def test_every_response_has_an_id_and_a_date(api):
    made = api.get("/health")
    assert made.headers["x-request-id"].startswith("req-")
    assert made.headers["date"].endswith(" GMT")
    assert api.get("/health", headers={"x-request-id": "abc.123"}).headers["x-request-id"] == "abc.123"
    assert api.get("/nowhere", headers={"x-request-id": "x" * 500}).headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello there\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(160)),
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: nine\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n" * 1000,
        b"\x00" * 4096,
    ],
    ids=["text", "tls", "header", "length", "smuggling", "newlines", "zeros"],
)
def test_what_is_no_http_is_refused(api, garbage):
    with api.connect() as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert api.get("/health/live").status_code == 200


def test_a_header_too_large_is_refused(api):
    response = api.get("/health", headers={"x-long": "a" * 70_000})
    assert response.status_code == 431
