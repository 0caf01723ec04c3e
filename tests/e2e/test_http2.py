"""HTTP/2: asked by httpx and curl over TLS, and frame by frame with the h2 package in the clear."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import openai
import pytest
from certificate import Certificate
from program import MODEL, ServeProcess, needs_model

pytestmark = needs_model

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http2")
    process = ServeProcess(MODEL, *Certificate(folder).flags(), cache=folder)
    with httpx.Client(http1=False, http2=True, verify=False, base_url=process.url, timeout=120) as client:
        yield client
    status = process.process.poll()
    process.close()
    assert status is None, process.errors()


class Frames:
    """One connection in the clear that begins with HTTP/2, as RFC 9113 calls prior knowledge."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path: str, body: dict | None = None, end=True, **headers) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET" if body is None else "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.h2.send_headers(stream, [*fields, *headers.items()], end_stream=body is None and end)
        if body is not None:
            self.h2.send_data(stream, json.dumps(body).encode(), end_stream=end)
        self.flush()
        return stream

    def wait(self, kind: type, stream: int | None = None, acknowledge=True):
        """The next event of that kind; everything before it is kept in self.events."""
        while True:
            for index, event in enumerate(self.events):
                if isinstance(event, kind) and (stream is None or event.stream_id == stream):
                    return self.events.pop(index)
            data = self.socket.recv(65536)
            assert data, f"the server hung up; it had said {self.events}"
            for event in self.h2.receive_data(data):
                self.events.append(event)
                if acknowledge and isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.flush()

    def body(self, stream: int) -> bytes:
        self.wait(h2.events.StreamEnded, stream)
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)

    def response(self, stream: int) -> tuple[int, bytes]:
        head = dict(self.wait(h2.events.ResponseReceived, stream).headers)
        return int(head[":status"]), self.body(stream)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.fixture
def frames(api):
    with Frames(api.port) as connection:
        yield connection


def prompt(**fields) -> dict:
    return {"prompt": "Once upon a time", "temperature": 0, **fields}


def wait_until_idle(api) -> dict:
    deadline = time.monotonic() + 60
    while True:
        stats = api.stats()
        if stats["running"] + stats["waiting"] + stats["paused"] == 0:
            return stats
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)


def test_answers_are_the_same_as_over_http_1(tls, api):
    for path in ["/v1/models", "/health/live", "/nowhere"]:
        answer = tls.get(path)
        assert answer.http_version == "HTTP/2"
        assert answer.status_code == api.get(path).status_code
        assert answer.headers["x-request-id"].startswith("req-")
        assert int(answer.headers["content-length"]) == len(answer.content)
    text = tls.post(COMPLETIONS, json=prompt(max_tokens=12)).json()["choices"][0]["text"]
    assert text == api.complete(max_tokens=12, temperature=0)["choices"][0]["text"]
    assert tls.head("/health").content == b""
    bad = tls.post(COMPLETIONS, json=prompt(temperature=9))
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "temperature")


def test_the_openai_package_over_http_2(tls):
    client = openai.OpenAI(base_url=f"{tls.base_url}/v1", api_key="none", max_retries=0, http_client=tls)
    model = client.models.list().data[0].id
    stream = client.completions.create(model=model, prompt="Once upon a time", max_tokens=10, temperature=0, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == client.completions.create(model=model, prompt="Once upon a time", max_tokens=10, temperature=0).choices[0].text


def test_many_requests_share_a_connection(tls):
    # On one thread: httpx's threads share the connection's state without a lock, and now and then lose a frame.
    async def ask(client: httpx.AsyncClient, index: int) -> str:
        body = prompt(max_tokens=5 + index % 7, ignore_eos=True, stream=True)
        async with client.stream("POST", COMPLETIONS, json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
        return "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines)

    async def ask_all() -> list[str]:
        options = {"http1": False, "http2": True, "verify": False, "timeout": 120}
        async with httpx.AsyncClient(base_url=tls.base_url, **options) as client:
            return await asyncio.gather(*(ask(client, index) for index in range(64)))

    answers = asyncio.run(ask_all())
    assert len(answers) == 64
    longest = max(answers, key=len)
    assert all(longest.startswith(text) for text in answers)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")
def test_curl_with_prior_knowledge_and_by_alpn(tls, api):
    for url, flags in [(api.url, ["--http2-prior-knowledge"]), (str(tls.base_url), ["--http2", "-k"])]:
        command = ["curl", "-s", *flags, "-w", "%{http_version} %{http_code}", "-o", "/dev/null", f"{url}/health"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 200"


def test_a_large_body_and_one_too_large(frames):
    body = json.dumps({"prompt": ["word " * 200] * 120, "max_tokens": 1}).encode()
    for size, status in [(len(body), 200), (11 << 20, 413)]:
        sent = body.ljust(size)
        stream = frames.h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":path", COMPLETIONS), (":scheme", "http"), (":authority", "x")]
        frames.h2.send_headers(stream, fields)
        while sent and not any(isinstance(e, h2.events.ResponseReceived) for e in frames.events):
            room = min(frames.h2.local_flow_control_window(stream), frames.h2.max_outbound_frame_size, len(sent))
            if room == 0:
                frames.flush()
                for event in frames.h2.receive_data(frames.socket.recv(65536)):
                    frames.events.append(event)
                continue
            frames.h2.send_data(stream, sent[:room], end_stream=room == len(sent))
            sent = sent[room:]
        frames.flush()
        assert frames.response(stream)[0] == status


def test_a_reset_ends_the_request_within_a_step(api, frames):
    wait_until_idle(api)
    before = api.stats()["generated_tokens"]
    stream = frames.request(COMPLETIONS, prompt(max_tokens=2000, ignore_eos=True, stream=True))
    other = frames.request(COMPLETIONS, prompt(max_tokens=40, ignore_eos=True))
    frames.wait(h2.events.DataReceived, stream)
    frames.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    frames.flush()
    assert frames.response(other)[0] == 200  # the others go on
    assert wait_until_idle(api)["generated_tokens"] - before < 1000


def test_a_stream_without_window_pauses_alone(api):
    with Frames(api.port) as frames:
        frames.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2000})
        frames.flush()
        frames.wait(h2.events.SettingsAcknowledged)
        slow = frames.request(COMPLETIONS, prompt(max_tokens=1500, ignore_eos=True, stream=True))
        received = 0
        while received < 2000:
            received += len(frames.wait(h2.events.DataReceived, slow, acknowledge=False).data)
        quick = frames.request("/health")
        assert frames.response(quick)[0] == 200
        assert received == 2000
        frames.h2.increment_flow_control_window(1 << 24, slow)
        frames.h2.increment_flow_control_window(1 << 24)
        frames.flush()
        assert frames.body(slow).endswith(b"data: [DONE]\n\n")


def test_a_stream_ends_with_its_timing_where_that_is_asked_for(frames):
    stream = frames.request(COMPLETIONS, prompt(max_tokens=5, stream=True), **{"x-mlxs-timing": "1"})
    assert dict(frames.wait(h2.events.ResponseReceived, stream).headers)["trailer"] == "x-mlxs-timing"
    said = dict(frames.wait(h2.events.TrailersReceived, stream).headers)["x-mlxs-timing"]
    parts = {name: float(value) for name, _, value in (part.partition(";dur=") for part in said.split(", "))}
    assert sum(parts.values()) - parts["total"] == pytest.approx(parts["total"], rel=0.01)
    assert frames.body(stream).endswith(b"data: [DONE]\n\n")


def test_a_rapid_reset_is_cut_off(api, frames):
    """CVE-2023-44487: streams opened and reset in a hurry."""
    try:
        for _ in range(1000):
            stream = frames.request(COMPLETIONS, prompt(max_tokens=50))
            frames.h2.reset_stream(stream)
            frames.flush()
    except (ConnectionError, h2.exceptions.ProtocolError):
        pass
    assert frames.wait(h2.events.ConnectionTerminated).error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    wait_until_idle(api)


def raw_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def test_endless_continuations_are_cut_off(api, frames):
    frames.socket.sendall(raw_frame(1, 0x1, 1, b"\x82\x86\x84\x41\x01x"))  # no END_HEADERS
    try:
        for _ in range(5000):
            frames.socket.sendall(raw_frame(9, 0, 1, b""))
    except ConnectionError:
        pass
    codes = [h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, h2.errors.ErrorCodes.PROTOCOL_ERROR]  # ours, or nghttp2's own
    assert frames.wait(h2.events.ConnectionTerminated).error_code in codes
    assert api.get("/health").status_code == 200


def test_headers_over_the_limit(frames):
    status, body = frames.response(frames.request("/health", **{f"x-{i}": "a" * 7000 for i in range(11)}))
    assert (status, json.loads(body)["error"]["code"]) == (431, "too_large")
    assert frames.response(frames.request("/health"))[0] == 200


def test_a_header_bomb_costs_its_stream_only(frames):
    """One large field, then thousands of one-byte references to it."""
    frames.flush()
    field = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"a" * 4000  # literal, indexed from now on
    head = b"\x82\x86\x84\x41\x01x" + field + b"\xbe" * 8000
    frames.socket.sendall(raw_frame(1, 0x5, 1, head))
    frames.h2.highest_outbound_stream_id = 1
    data = b""
    while raw_frame(3, 0, 1, b"\0\0\0\x02")[:9] not in data:  # RST_STREAM of stream 1
        data += frames.socket.recv(65536)
    frames.socket.sendall(raw_frame(6, 0, 0, b"12345678"))
    while raw_frame(6, 1, 0, b"12345678") not in data:  # the connection is alive
        data += frames.socket.recv(65536)


def test_a_drain_tells_clients_and_finishes_what_runs(tmp_path):
    process = ServeProcess(MODEL, cache=tmp_path)
    try:
        port = int(process.url.rsplit(":", 1)[1])
        with Frames(port) as frames, Frames(port) as idle:
            assert idle.response(idle.request("/health"))[0] == 200
            stream = frames.request(COMPLETIONS, prompt(max_tokens=200, ignore_eos=True, stream=True))
            frames.wait(h2.events.DataReceived, stream)
            process.signal(signal.SIGTERM)
            # Frame by frame: the h2 package takes nothing after a GOAWAY, and the stream goes on after it.
            goaway = raw_frame(7, 0, 0, stream.to_bytes(4, "big") + b"\0\0\0\0")
            data = b""
            while goaway not in data or b"data: [DONE]" not in data:
                piece = frames.socket.recv(65536)
                assert piece
                data += piece
            assert data.index(goaway) < data.index(b"data: [DONE]")
            assert idle.wait(h2.events.ConnectionTerminated).error_code == 0
        assert process.wait() == 0
    finally:
        process.close()


def test_browsers_pages_are_asked_for_their_origin_here_too(tls):
    assert tls.get("/health", headers={"origin": "https://evil.example"}).status_code == 403
