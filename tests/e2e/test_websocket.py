"""The WebSocket gateway, asked with the websockets package: many requests at once, cancels, limits, keys, origins."""

import hashlib
import json
import signal
import ssl
import time

import pytest
import requests
import websockets
from certificate import Certificate
from program import MODEL, ServeProcess, needs_model
from websockets.sync.client import connect

pytestmark = needs_model

COMPLETIONS = "/v1/completions"


def url(api) -> str:
    return api.url.replace("http", "ws", 1) + "/v1/ws"


class Client:
    def __init__(self, address: str, **more):
        self.socket = connect(address, max_size=None, compression=None, **more)

    def send(self, **message) -> None:
        self.socket.send(json.dumps(message))

    def receive(self) -> dict:
        return json.loads(self.socket.recv(timeout=60))

    def ask(self, identity: str, path=COMPLETIONS, **body) -> None:
        self.send(type="request", id=identity, path=path, body={"prompt": "Once upon a time", "temperature": 0, **body})

    def until(self, kind: str) -> list[dict]:
        messages = [self.receive()]
        while messages[-1]["type"] != kind:
            messages.append(self.receive())
        return messages

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.fixture
def client(api):
    with Client(url(api)) as client:
        yield client


def wait_until_idle(api) -> dict:
    deadline = time.monotonic() + 60
    while True:
        stats = api.stats()
        if stats["running"] + stats["waiting"] + stats["paused"] == 0:
            return stats
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)


def test_a_document_and_a_stream_say_what_http_says(api, client):
    expected = api.complete(max_tokens=12, temperature=0)["choices"][0]["text"]
    client.ask("a", max_tokens=12)
    answer = client.receive()
    assert (answer["type"], answer["id"], answer["status"]) == ("response", "a", 200)
    assert answer["body"]["choices"][0]["text"] == expected
    client.ask("b", max_tokens=12, stream=True)
    messages = client.until("done")
    assert {message["id"] for message in messages} == {"b"}
    assert "".join(message["data"]["choices"][0]["text"] for message in messages[:-1]) == expected


def test_other_dialects_keep_the_names_of_their_events(client, api):
    body = {"model": api.model, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    client.send(type="request", id="m", path="/v1/messages", body=body)
    messages = client.until("done")
    assert messages[0]["event"] == messages[0]["data"]["type"] == "message_start"
    assert messages[-2]["event"] == "message_stop"
    client.send(
        type="request", id="o", path="/api/generate", body={"model": api.model, "prompt": "hi", "options": {"num_predict": 4}}
    )
    assert client.until("done")[-2]["data"]["done"] is True


def test_many_at_once(client):
    for index in range(40):
        client.ask(f"r{index}", max_tokens=4 + index % 9, ignore_eos=True, stream=True)
    texts: dict[str, str] = {}
    done = 0
    while done < 40:
        message = client.receive()
        if message["type"] == "done":
            done += 1
        else:
            texts[message["id"]] = texts.get(message["id"], "") + message["data"]["choices"][0]["text"]
    longest = max(texts.values(), key=len)
    assert len(texts) == 40
    assert all(longest.startswith(text) for text in texts.values())


def test_one_request_more_than_may_run_should_come_again(tmp_path):
    config = tmp_path / "runtime.yaml"
    config.write_text("transport: {http2: {max_streams_per_session: 3}}\n")
    process = ServeProcess("mock:tokens=1000000,delay=20", "--config", str(config), cache=tmp_path)
    try:
        with Client(process.url.replace("http", "ws", 1) + "/v1/ws") as client:
            for index in range(4):
                client.ask(str(index), max_tokens=1000, stream=True)
            refused = next(message for message in iter(client.receive, None) if message["type"] == "response")
            assert refused["status"] == 429
            assert "wait for one to end" in refused["body"]["error"]["message"]
            assert refused["headers"]["x-should-retry"] == "true"
            assert refused["headers"]["retry-after"] == "1"
    finally:
        process.close()


def test_a_cancel_ends_its_request_only(api, client):
    wait_until_idle(api)
    before = api.stats()["generated_tokens"]
    client.ask("long", max_tokens=2000, ignore_eos=True, stream=True)
    assert client.receive()["type"] == "chunk"
    client.ask("short", max_tokens=30, ignore_eos=True)
    client.send(type="cancel", id="long")
    kinds = [message["type"] for message in client.until("response") if message["id"] == "long"]
    assert kinds[-1] == "cancelled"
    assert wait_until_idle(api)["generated_tokens"] - before < 1000
    client.send(type="cancel", id="long")
    assert client.receive()["error"]["param"] == "id"


def test_a_client_that_goes_ends_its_requests(api):
    wait_until_idle(api)
    before = api.stats()["generated_tokens"]
    with Client(url(api)) as client:
        for index in range(3):
            client.ask(str(index), max_tokens=2000, ignore_eos=True, stream=True)
        client.receive()
    assert wait_until_idle(api)["generated_tokens"] - before < 3000


def test_errors_name_what_is_wrong_and_the_connection_goes_on(client):
    for message, param in [
        ("{", None),
        ("[]", None),
        ('{"type":1}', "type"),
        ('{"type":"data"}', "type"),
        ('{"type":"request","path":"/v1/completions","body":{}}', "id"),
        ('{"type":"request","id":"a","body":{}}', "path"),
        ('{"type":"request","id":"a","path":"/v1/completions","body":"text"}', "body"),
        ('{"type":"request","id":"a","path":"/v1/completions","body":' + '{"a":' * 200 + "1" + "}" * 201, None),
    ]:
        client.socket.send(message)
        answer = client.receive()
        assert (answer["type"], answer["error"]["param"]) == ("error", param), message
    client.socket.send(b"\x00\x01")
    assert client.receive()["type"] == "error"
    client.ask("hot", temperature=9)
    answer = client.receive()
    assert (answer["status"], answer["body"]["error"]["param"]) == (400, "temperature")
    client.ask("where", path="/nowhere")
    assert client.receive()["status"] == 404
    client.ask("twice", max_tokens=500, ignore_eos=True, stream=True)
    client.ask("twice")
    assert client.until("error")[-1]["error"]["param"] == "id"
    client.send(type="cancel", id="twice")
    client.until("cancelled")
    client.send(type="ping")
    assert client.receive() == {"type": "pong"}


def test_a_message_over_the_limit_closes(client):
    client.ask("big", prompt="x" * (16 << 20))  # more than the sockets' buffers hold: the close comes while it is sent
    with pytest.raises(websockets.ConnectionClosed) as closed:
        client.receive()
    assert closed.value.rcvd.code == 1009


def test_a_reader_that_stops_pauses_its_requests(api):
    wait_until_idle(api)
    with Client(url(api)) as client:
        for index in range(3):
            client.ask(str(index), max_tokens=600, ignore_eos=True, stream=True, logprobs=5)
        time.sleep(3)  # nothing is read
        client.send(type="ping")
        done = 0
        while done < 3:
            done += client.receive()["type"] == "done"


def test_pages_elsewhere_and_plain_requests_are_refused(api):
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(url(api), origin="https://evil.example")
    assert refused.value.response.status_code == 403
    connect(url(api), origin=api.url).close()
    plain = api.get("/v1/ws")
    assert (plain.status_code, plain.headers["upgrade"]) == (426, "websocket")


def test_a_key_by_header_or_subprotocol_and_over_tls(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(b'key-of-alice').hexdigest()} alice\n")
    certificate = Certificate(tmp_path)
    process = ServeProcess(MODEL, "--api-keys", str(keys), *certificate.flags(), cache=tmp_path)
    try:
        address = process.url.replace("https", "wss") + "/v1/ws"
        trust = ssl.create_default_context(cafile=str(certificate.cert))
        for more in [{}, {"additional_headers": {"x-api-key": "wrong"}}, {"subprotocols": ["mlxs", "mlxs-key.wrong"]}]:
            with pytest.raises(websockets.InvalidStatus) as refused:
                connect(address, ssl=trust, **more)
            assert refused.value.response.status_code == 401
        for more in [
            {"additional_headers": {"authorization": "Bearer key-of-alice"}},
            {"subprotocols": ["mlxs", "mlxs-key.key-of-alice"]},
        ]:
            with Client(address, ssl=trust, **more) as client:
                assert client.socket.subprotocol == ("mlxs" if "subprotocols" in more else None)
                client.ask("a", max_tokens=5, stream=True)
                assert client.until("done")
                client.send(type="request", id="s", path="/metrics", body={})
                assert client.receive()["status"] in (403, 405)
    finally:
        process.close()


def test_a_drain_finishes_what_runs_and_closes_with_1001(tmp_path):
    process = ServeProcess(MODEL, cache=tmp_path)
    try:
        with Client(process.url.replace("http", "ws") + "/v1/ws") as client:
            client.ask("a", max_tokens=200, ignore_eos=True, stream=True)
            client.receive()
            process.signal(signal.SIGTERM)
            assert len(client.until("done")) > 100
            with pytest.raises(websockets.ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd.code == 1001
        assert process.wait() == 0
    finally:
        process.close()


def test_the_server_is_as_well_as_before(api):
    assert requests.get(f"{api.url}/health/ready", timeout=60).json()["ready"] is True
