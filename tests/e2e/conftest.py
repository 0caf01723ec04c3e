"""One server with the real model for all tests of the API: started at the first test that needs it."""

import json
import os
import re
import socket
from urllib.parse import urlsplit

import httpx
import httpx2
import openai
import pytest
import requests
from program import BIN, MODEL, ServeProcess

ENCODER = os.environ.get("MLXS_TEST_ENCODER", "")

# The servers are on this machine: no proxy of the environment may come between.
os.environ["NO_PROXY"] = "127.0.0.1,localhost"


class Api:
    """A running server and the ways to talk to it."""

    def __init__(self, process: ServeProcess):
        self.process = process
        self.url = process.url
        self.port = urlsplit(process.url).port
        self.model = self.get("/v1/models").json()["data"][0]["id"]
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def get(self, path: str, **more) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **more)

    def post(self, path: str, body, **more) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=120, **more)

    def chat(self, text: str = "Say hello.", **fields) -> dict:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], **fields}
        response = self.post("/v1/chat/completions", body)
        assert response.status_code == 200, response.text
        return response.json()

    def complete(self, prompt="Once upon a time", **fields) -> dict:
        response = self.post("/v1/completions", {"model": self.model, "prompt": prompt, **fields})
        assert response.status_code == 200, response.text
        return response.json()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def stats(self) -> dict:
        return self.get("/v1/scheduler/stats").json()["data"][0]


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    if not (BIN and MODEL):
        pytest.skip("MLXS_BIN and MLXS_TEST_MODEL are not set: run through make test")
    process = ServeProcess(MODEL, cache=tmp_path_factory.mktemp("api-cache"))
    yield Api(process)
    status = process.process.poll()
    process.close()
    assert status is None, f"the server ended by itself with {status}: {process.errors()}"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A server with the real model and an encoder beside it."""
    if not (BIN and MODEL and ENCODER):
        pytest.skip("MLXS_BIN, MLXS_TEST_MODEL and MLXS_TEST_ENCODER are not set: run through make test")
    process = ServeProcess(MODEL, ENCODER, cache=tmp_path_factory.mktemp("encoder-cache"))
    yield Api(process)
    status = process.process.poll()
    process.close()
    assert status is None, f"the server ended by itself with {status}: {process.errors()}"


def endpoint(method: str, path: str) -> str:
    """With what differs from call to call left open: "GET /v1/responses/{id}"."""
    path = re.sub(r"^(/v1/(?:responses|requests))/[^/]+", r"\1/{id}", path)
    return method + " " + re.sub(r"^(/v1/models)/.+", r"\1/{id}", path)


@pytest.fixture(autouse=True)
def heard_by_clients(monkeypatch, record_property):
    """What the clients' packages (all on httpx or httpx2) and plain HTTP (requests) asked and got in this test: for
    scripts/clients_table.py."""
    heard = set()

    def listen(request, response):
        if response.status_code < 400:
            kind = response.headers.get("content-type", "").partition(";")[0]
            streamed = kind in ("text/event-stream", "application/x-ndjson")
            agent = request.headers.get("user-agent", "").partition(" ")[0]
            heard.add((agent, endpoint(request.method, urlsplit(str(request.url)).path), streamed))
        return response

    def listening_to(send):
        return lambda client, request, **more: listen(request, send(client, request, **more))

    def listening_to_async(send):
        async def listening(client, request, **more):
            return listen(request, await send(client, request, **more))

        return listening

    for package in (httpx, httpx2):
        monkeypatch.setattr(package.Client, "send", listening_to(package.Client.send))
        monkeypatch.setattr(package.AsyncClient, "send", listening_to_async(package.AsyncClient.send))
    monkeypatch.setattr(requests.Session, "send", listening_to(requests.Session.send))
    yield heard
    if heard:
        record_property("heard", json.dumps(sorted(heard)))
