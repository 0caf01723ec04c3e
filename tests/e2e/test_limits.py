"""Limits that are configuration: what clients may hold up, send and ask for; nobody else notices those who overdo it."""

import hashlib
import json
import re
import resource
import select
import signal
import socket
import time

import openai
import pytest
import requests
from program import ServeProcess, needs_program

pytestmark = needs_program

CHAT = "/v1/chat/completions"


def connect(server, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(60)
    client.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    return client


def send_until_answered(client: socket.socket, piece: bytes, pause: float) -> None:
    for _ in range(6000):
        client.sendall(piece)
        if select.select([client], [], [], pause)[0]:
            return
    raise AssertionError("the server takes everything")


def rest_of(client: socket.socket) -> bytes:
    received = b""
    try:
        while more := client.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def body(**fields) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}).encode()


def post(**fields) -> bytes:
    text = body(**fields)
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(text)) + text


def stats(server) -> dict:
    return requests.get(f"{server.url}/v1/scheduler/stats", timeout=60).json()["data"][0]


def wait_for(server, condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition(stats(server)):
        assert time.monotonic() < deadline, (what, stats(server), server.errors())
        time.sleep(0.02)


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    flags = ["--request-timeout", "1", "--idle-timeout", "1", "--max-header-bytes", "2KiB", "--max-body-bytes", "4KiB"]
    process = ServeProcess("mock:tokens=100000", *flags, cache=tmp_path_factory.mktemp("strict"))
    yield process
    process.close()


def test_a_request_that_trickles_is_cut(strict):
    with connect(strict) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        send_until_answered(client, b"x-more: 1\r\n", pause=0.1)
        assert rest_of(client).startswith(b"HTTP/1.1 408 ")


def test_headers_and_bodies_end_where_they_were_told(strict):
    assert requests.get(f"{strict.url}/health", headers={"x-long": "a" * 3000}, timeout=60).status_code == 431
    with connect(strict) as client:  # no end of it, and no length
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode())
        send_until_answered(client, b"100\r\n" + b" " * 256 + b"\r\n", pause=0.01)
        assert rest_of(client).startswith(b"HTTP/1.1 413 ")
    assert requests.post(strict.url + CHAT, data=b" " * 5000, timeout=60).status_code == 413


def test_who_says_nothing_is_let_go(strict):
    with connect(strict) as silent, connect(strict) as idle:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert rest_of(idle).startswith(b"HTTP/1.1 200 ")  # and the end, a second later
        assert rest_of(silent) == b""


def test_a_client_that_closes_its_side_ends_its_request(strict):
    with connect(strict) as client:
        client.sendall(post())
        assert client.recv(100)
        client.shutdown(socket.SHUT_WR)
        wait_for(strict, lambda s: s["running"] + s["paused"] == 0, "a half-closed stream")


def test_requests_that_come_early_are_answered_in_order(strict):
    ask = b"GET /v1/models/%s HTTP/1.1\r\nhost: x\r\nx-request-id: %s\r\n\r\n"
    with connect(strict) as client:
        client.sendall(b"".join(ask % (name, b"id-" + name) for name in (b"mock", b"none", b"mock")) + post(max_tokens=3))
        received = b""
        while b"[DONE]" not in received:
            received += client.recv(65536)
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", received)
    assert statuses == [b"200", b"404", b"200", b"200"]
    assert re.findall(rb"x-request-id: (id-\w+)", received) == [b"id-mock", b"id-none", b"id-mock"]


def test_more_idle_connections_than_files_by_default(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 3000 if hard == resource.RLIM_INFINITY else min(3000, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # what the server begins with
    process = ServeProcess("mock:tokens=3", cache=tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))  # ours
    clients = []
    try:
        clients = [connect(process) for _ in range(count)]
        for client in (clients[0], clients[-1]):
            client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert requests.get(f"{process.url}/health", timeout=60).status_code == 200
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        process.close()


def test_a_reader_that_takes_nothing_is_cancelled_where_that_is_the_policy(tmp_path):
    flags = ["--slow-reader", "cancel", "--slow-reader-timeout", "0.5"]
    process = ServeProcess("mock:tokens=1000000", *flags, cache=tmp_path)
    try:
        with connect(process, receive_buffer=4096) as client:
            client.sendall(post(max_tokens=900_000))
            assert client.recv(100)
            wait_for(process, lambda s: s["running"] + s["paused"] == 0, "a slow reader")
        assert "took nothing of its stream for 500 ms" in process.errors()
    finally:
        process.close()


def test_a_silent_stream_says_that_it_is_there(tmp_path):
    process = ServeProcess("mock:tokens=2,delay=400", "--keep-alive", "0.1", cache=tmp_path)
    try:
        for path in (CHAT, "/v1/messages"):
            text = requests.post(process.url + path, data=body(model="mock", max_tokens=5), timeout=60).text
            assert text.startswith(": keep-alive\n\n")
            assert " quick" in text
        client = openai.OpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0, timeout=60)
        stream = client.chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hi"}], stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream) == " The quick"
        lines = requests.post(f"{process.url}/api/chat", json={"model": "mock", "messages": []}, timeout=60).text
        assert all(json.loads(line) for line in lines.splitlines())
    finally:
        process.close()


def line(key: str, rest: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()} {rest}\n"


def ask(server, key: str | None = None, **headers) -> requests.Response:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return requests.post(server.url + CHAT, data=body(stream=False), headers=headers, timeout=60)


def test_each_key_has_its_rate_and_new_keys_come_with_a_hangup(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(line("a", "alice rpm=2") + line("b", "bob rpm=0 tpm=40") + line("c", "carol rpm=0") + line("d", "dora admin"))
    process = ServeProcess("mock:tokens=50", "--api-keys", str(keys), "--requests-per-minute", "1", cache=tmp_path)
    try:
        first = ask(process, "a")
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert re.fullmatch(r"\d+m?[\d.]*m?s", first.headers["x-ratelimit-reset-requests"])
        assert ask(process, "a").status_code == 200
        refused = ask(process, "a")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"

        assert ask(process, "b").status_code == 200  # uses more than its 40 tokens
        refused = ask(process, "b")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        for key in ("c", "d"):
            for _ in range(4):
                assert ask(process, key).status_code == 200
        client = openai.OpenAI(base_url=f"{process.url}/v1", api_key="a", max_retries=0, timeout=60)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hi"}])

        assert ask(process, "e").status_code == 401
        keys.write_text(line("e", "eve rpm=9"))
        process.signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while ask(process, "e").status_code == 401:
            assert time.monotonic() < deadline
        assert ask(process, "d").status_code == 401
        keys.write_text("nonsense\n")
        process.signal(signal.SIGHUP)
        while "stay as they were" not in process.errors():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ask(process, "e").status_code == 200
    finally:
        process.close()


def test_addresses_have_rates_where_nobody_is_asked_for_a_key(tmp_path):
    flags = ["--requests-per-minute", "2", "--trusted-proxy", "127.0.0.0/8"]
    process = ServeProcess("mock:tokens=2", *flags, cache=tmp_path)
    try:
        here = {"x-forwarded-for": "203.0.113.5"}
        assert [ask(process, **here).status_code for _ in range(3)] == [200, 200, 429]
        assert ask(process, **{"x-forwarded-for": "203.0.113.5, 203.0.113.6"}).status_code == 200  # who says so is .6
        assert ask(process, forwarded="for=203.0.113.5").status_code == 429
    finally:
        process.close()
