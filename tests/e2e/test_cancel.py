"""A client that drops or cancels a request ends its work within one step: over every protocol, in every dialect.

Steps of the mock take two seconds, so that what a client does between two of them is done before the next begins, on a slow
machine too. All cases run at once, in the same steps; what each was given comes from GET /v1/requests/{id}.
"""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import h2.events
import pytest
import requests
from program import ServeProcess, needs_program
from test_http2 import Frames
from websockets.sync.client import connect

pytestmark = needs_program

CHAT = {"messages": [{"role": "user", "content": "Go on."}]}
DIALECTS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Go on."},
    "/v1/responses": {"input": "Go on."},
    "/v1/messages": {"model": "mock", **CHAT, "max_tokens": 1000},
    "/api/chat": {"model": "mock", **CHAT},
    "/api/generate": {"model": "mock", "prompt": "Go on."},
}
FIRST_WORD = b" The"  # what the mock's first token is


def raw_post(path: str, body: dict, name: str) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {name}\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(data)}\r\n\r\n".encode() + data


def read_first_word(connection: socket.socket) -> None:
    got = b""
    while FIRST_WORD not in got:
        data = connection.recv(65536)
        assert data, got
        got += data


class Server:
    def __init__(self, process: ServeProcess, unix_path):
        self.url, self.port, self.unix_path = process.url, urlsplit(process.url).port, str(unix_path)

    def record(self, name: str) -> dict:
        response = requests.get(f"{self.url}/v1/requests/{name}", timeout=60)
        return response.json() if response.ok else {"state": "not there yet"}

    def wait(self, name: str, done) -> dict:
        deadline = time.monotonic() + 100
        while not done(record := self.record(name)):
            assert time.monotonic() < deadline, (name, record)
            time.sleep(0.05)
        return record


# Each sends a streaming request, reads its first token, and ends it in its way.


def http1(server, path, body, name):
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(raw_post(path, body, name))
        read_first_word(connection)


def half_closed(server, path, body, name):
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(raw_post(path, body, name))
        read_first_word(connection)
        connection.shutdown(socket.SHUT_WR)
        server.wait(name, lambda record: record["state"] == "done")  # the connection is still there


def unix(server, path, body, name):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        connection.connect(server.unix_path)
        connection.sendall(raw_post(path, body, name))
        read_first_word(connection)


def http2(server, path, body, name, reset=True):
    with Frames(server.port) as frames:
        frames.socket.settimeout(120)
        stream = frames.request(path, body, **{"x-request-id": name, "content-type": "application/json"})
        got = b""
        while FIRST_WORD not in got:
            got += frames.wait(h2.events.DataReceived, stream).data
        if reset:
            frames.h2.reset_stream(stream)
            frames.flush()
            server.wait(name, lambda record: record["state"] == "done")  # the connection is still there


def http2_drop(server, path, body, name):
    http2(server, path, body, name, reset=False)


def websocket(server, path, body, name, cancel=True):
    handshake = {"x-request-id": name.removesuffix("-1")}  # its requests are numbered
    with connect(f"ws://127.0.0.1:{server.port}/v1/ws", max_size=None, additional_headers=handshake) as client:
        client.send(json.dumps({"type": "request", "id": name, "path": path, "body": body}))
        while FIRST_WORD.decode() not in client.recv(timeout=120):
            pass
        if cancel:
            client.send(json.dumps({"type": "cancel", "id": name}))
            while json.loads(client.recv(timeout=120))["type"] != "cancelled":
                pass
        else:
            client.socket.close()


def websocket_drop(server, path, body, name):
    websocket(server, path, body, name, cancel=False)


def document(server, path, body, name):
    """Not a stream: it goes once the prompt is being worked on, which the queue's emptiness tells."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(raw_post(path, {**body, "stream": False}, name))
        server.wait(name, lambda record: record["state"] == "running")


WAYS = [http1, half_closed, unix, http2, http2_drop, websocket, websocket_drop, document]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """What every case was given, by way and path."""
    folder = tmp_path_factory.mktemp("cancel")
    process = ServeProcess(
        "mock:tokens=1000,delay=2000",
        "--host",
        "127.0.0.1",
        "--unix-socket",
        str(folder / "s"),
        "--max-running",
        "64",
        cache=folder,
    )
    server = Server(process, folder / "s")

    def go(case):
        way, path = case
        name = f"{way.__name__}-{path.replace('/', '.')}-1"
        way(server, path, {**DIALECTS[path], "stream": True}, name)
        return server.wait(name, lambda record: record["state"] == "done")

    cases = [(way, path) for way in WAYS for path in DIALECTS]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = dict(zip(cases, pool.map(go, cases), strict=True))
    stats = requests.get(f"{server.url}/v1/scheduler/stats", timeout=60).json()["data"][0]
    yield found, stats
    process.close()


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_work_ends_within_one_step(records, way, path):
    (choice,) = records[0][way, path]["choices"]
    assert choice["finish"] == "cancelled"
    # The token that it had, and that of the step which ran meanwhile. A document's client has seen none of either.
    assert choice["generated_tokens"] <= 2


def test_nothing_is_left_behind(records):
    stats = records[1]
    assert stats["running"] + stats["waiting"] + stats["paused"] == 0
    assert stats["kv_pages"]["held"] == 0
