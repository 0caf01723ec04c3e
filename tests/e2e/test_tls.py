"""The server over TLS: asked by Python's ssl and the openai package, with a certificate made for the test."""

import json
import signal
import socket
import ssl
import time

import httpx
import openai
import pytest
import requests
from certificate import Certificate
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model

CHAT = "/v1/chat/completions"


class TlsServer:
    def __init__(self, folder):
        self.certificate = Certificate(folder)
        self.process = ServeProcess(MODEL, *self.certificate.flags(), cache=folder)
        self.url = self.process.url
        self.port = int(self.url.rsplit(":", 1)[1])
        self.model = self.get("/v1/models").json()["data"][0]["id"]

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, verify=str(self.certificate.cert), timeout=60)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate.cert))

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(plain, server_hostname="localhost")

    def stats(self) -> dict:
        return self.get("/v1/scheduler/stats").json()["data"][0]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    yield server
    status = server.process.process.poll()
    server.process.close()
    assert status is None, server.process.errors()


def body(server, **fields) -> dict:
    return {"model": server.model, "messages": [{"role": "user", "content": "Say hello."}], **fields}


def test_the_openai_package_streams(server):
    assert server.url.startswith("https://")
    http = httpx.Client(verify=server.context(), timeout=120)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
    messages = [{"role": "user", "content": "Say hello."}]
    whole = client.chat.completions.create(model=server.model, messages=messages, max_tokens=16, temperature=0)
    stream = client.chat.completions.create(model=server.model, messages=messages, max_tokens=16, temperature=0, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content != ""


def test_bodies_larger_than_any_record_pass_both_ways(server):
    prompts = ["word " * 400] * 60
    request = {"model": server.model, "prompt": prompts, "max_tokens": 1, "logprobs": 5}
    answer = requests.post(f"{server.url}/v1/completions", json=request, verify=str(server.certificate.cert), timeout=300)
    assert answer.status_code == 200
    assert len(answer.json()["choices"]) == 60
    metrics = server.get("/metrics")
    assert len(metrics.content) == int(metrics.headers["content-length"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_versions_that_are_spoken(server, version):
    context = server.context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    with server.connect(context) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):  # one connection, several requests
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_older_versions_and_weak_ciphers_are_refused(server):
    old = server.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak = server.context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    for context in (old, weak):
        with pytest.raises(ssl.SSLError):
            server.connect(context)


def test_the_end_of_a_stream_without_a_length_is_told_from_a_cut(server):
    """HTTP/1.0 has no other end than the connection's: Python raises unless TLS says goodbye."""
    data = json.dumps(body(server, stream=True, max_tokens=4)).encode()
    with server.connect(server.context()) as connection:
        head = f"POST {CHAT} HTTP/1.0\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        connection.sendall(head + data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.endswith(b"data: [DONE]\n\n")


def test_plain_http_is_told_what_to_do(server):
    answer = requests.get(server.url.replace("https", "http") + "/health", timeout=60)
    assert answer.status_code == 400
    assert "https://" in answer.json()["error"]["message"]


def test_a_client_that_goes_ends_its_request(server):
    before = server.stats()["finished"]
    data = json.dumps(body(server, stream=True, max_tokens=1500, ignore_eos=True)).encode()
    with server.connect(server.context()) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        while b"data: " not in connection.recv(65536):
            pass
    deadline = time.monotonic() + 60
    while server.stats()["running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.stats()["running"] == 0
    assert server.stats()["generated_tokens"] < 1500 + 200
    assert server.stats()["finished"] >= before


def test_garbage_instead_of_a_handshake(server):
    for garbage in [b"\x16\x03\x01\x00\x05hello", b"\x16" + b"\xff" * 5000, b"\x00"]:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert server.get("/health").status_code == 200


def test_a_hangup_reads_the_certificate_again(tmp_path):
    server = TlsServer(tmp_path)
    try:
        with server.connect(server.context()) as kept:
            first = kept.getpeercert(binary_form=True)
            server.certificate.renew()
            server.process.signal(signal.SIGHUP)
            while "read again" not in server.process.errors():
                time.sleep(0.02)
            with server.connect(server.context()) as fresh:
                assert fresh.getpeercert(binary_form=True) != first
            kept.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")  # goes on with what it began with
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")

        server.certificate.key.write_text("no key")
        server.process.signal(signal.SIGHUP)
        while "stays as it was" not in server.process.errors():
            time.sleep(0.02)
        server.connect(server.context()).close()
        server.process.signal(signal.SIGTERM)
        assert server.process.wait() == 0
    finally:
        server.process.close()


def test_files_that_do_not_fit_stop_the_start(tmp_path):
    one, other = Certificate(tmp_path, "one"), Certificate(tmp_path, "other")
    empty = tmp_path / "empty"
    empty.write_text("")
    for flags, named in [
        (["--tls-cert", str(one.cert), "--tls-key", str(other.key)], str(other.key)),
        (["--tls-cert", str(tmp_path / "none"), "--tls-key", str(one.key)], str(tmp_path / "none")),
        (["--tls-cert", str(empty), "--tls-key", str(one.key)], str(empty)),
        (["--tls-cert", str(one.cert)], "--tls-key"),
        (["--tls-key", str(one.key)], "--tls-cert"),
    ]:
        result = run("serve", MODEL, "--port", "0", *flags, cache=tmp_path)
        assert (result.status, result.out) == (1, "")
        assert named in result.err
