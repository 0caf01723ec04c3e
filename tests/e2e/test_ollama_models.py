"""Models that come and go, with the ollama package: pulled from a hub on this machine, loaded by a request, unloaded in time."""

import re
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ollama
import pytest
import requests
from hub_server import Hub, Repo
from program import MODEL, ServeProcess, needs_model

pytestmark = needs_model
SHORT = {"num_predict": 2}
MANY_BYTES = bytes(range(256)) * 400


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def hub():
    with Hub() as hub:
        hub.repos["org/real-GGUF"] = Repo({"real-Q4_1.gguf": Path(MODEL).read_bytes(), "README.md": b"# real"})
        hub.repos["org/slow"] = Repo({"config.json": b"{}", "model.safetensors": MANY_BYTES})
        yield hub


@pytest.fixture(scope="module")
def server(hub, tmp_path_factory):
    cache = tmp_path_factory.mktemp("ollama-models")
    spare = cache / "models" / "spare" / "spare.gguf"
    spare.parent.mkdir(parents=True)
    shutil.copy(MODEL, spare)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(cache / "hf"))
        process = ServeProcess(MODEL, cache=cache)
    yield process
    process.close()


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url, timeout=120)


def running(client):
    return {model.name: model for model in client.ps().models}


def test_a_model_on_disk_is_loaded_by_a_request_and_told_to_go(client):
    served = set(running(client))
    listed = {model.model for model in client.list().models}
    assert "spare" in listed - served

    answer = client.generate("spare:latest", "Hello", options=SHORT, keep_alive="1h")
    assert 0 < answer.load_duration < answer.total_duration
    left = running(client)["spare"].expires_at - datetime.now(UTC)
    assert 3000 < left.total_seconds() <= 3600
    assert client.chat("spare", [{"role": "user", "content": "Hello"}], options=SHORT).load_duration == 0
    assert running(client)["spare"].expires_at > datetime.now(UTC), "keep_alive stays as it was"

    assert client.generate("spare", keep_alive=0).done_reason == "unload"
    until(lambda: "spare" not in running(client))
    assert set(running(client)) == served


@pytest.mark.parametrize("keep_alive", [0, "200ms", 0.2])
def test_a_model_goes_when_its_time_is_over(client, keep_alive):
    parts = list(client.generate("spare", "Hello", options=SHORT, keep_alive=keep_alive, stream=True))
    assert parts[-1].done, "the answer is complete first"
    assert parts[-1].load_duration > 0
    until(lambda: "spare" not in running(client))


CHAT = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": CHAT, "max_tokens": 1, "stream": True}),
        ("/v1/messages", {"messages": CHAT, "max_tokens": 1}),
        ("/v1/messages/count_tokens", {"messages": CHAT}),
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 1}),
        ("/tokenize", {"prompt": "a"}),
        ("/detokenize", {"tokens": [20]}),
    ],
)
def test_a_request_of_any_api_keeps_a_model(server, client, path, body):
    client.generate("spare", "a", options=SHORT, keep_alive="10m")
    until_then = running(client)["spare"].expires_at
    answer = requests.post(server.url + path, json={"model": "spare", **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    until(lambda: running(client)["spare"].expires_at > until_then)

    def rests():  # its use has ended
        before = running(client)["spare"].expires_at
        time.sleep(0.05)
        return running(client)["spare"].expires_at - before < timedelta(milliseconds=20)

    until(rests)


def test_a_model_that_is_on_disk_only_has_a_remedy(server, client):
    client.generate("spare", keep_alive=0)
    until(lambda: "spare" not in running(client))
    for name, there in (("spare", True), ("sparse", False)):
        answer = requests.post(f"{server.url}/v1/completions", json={"model": name, "prompt": "a"}, timeout=60)
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        assert f"model '{name}' is not loaded" in message
        assert (f"mlx-serving serve {name}" in message) is there, message


def test_a_model_that_is_not_there_is_told_of_those_that_are_once(client):
    client.generate("spare", "a", options=SHORT, keep_alive=60)  # on disk and loaded
    with pytest.raises(ollama.ResponseError, match="not found") as refused:
        client.generate("sparse", "a")
    there = re.search(r"there are (.*); POST", str(refused.value))[1].split(", ")
    assert there.count("spare") == 1, there
    client.generate("spare", keep_alive=0)
    until(lambda: "spare" not in running(client))


def test_for_ever(client):
    assert client.generate("spare", keep_alive=-1).done_reason == "load"
    assert running(client)["spare"].expires_at.year > 2200
    client.generate("spare", keep_alive=0)
    until(lambda: "spare" not in running(client))


def test_a_pull_tells_its_progress_and_the_model_can_be_used(client, hub):
    lines = list(client.pull("org/real-GGUF", stream=True))
    assert lines[0].status == "pulling manifest"
    assert lines[-1].status == "success"
    told = [(line.completed, line.total) for line in lines if line.total]
    size = sum(len(data) for data in hub.repos["org/real-GGUF"].files.values())
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert any(model.model.startswith("org/real-GGUF") for model in client.list().models)
    answer = client.generate("org/real-GGUF", "Hello", options=SHORT, keep_alive=0)
    assert answer.eval_count == 2
    before = len(hub.seen)
    assert client.pull("org/real-GGUF").status == "success"
    assert not any(seen.server == "cdn" for seen in hub.seen[before:]), "it is complete: nothing is fetched"


def test_those_who_ask_for_the_same_share_a_download(client, hub):
    hub.faults.hold = threading.Event()
    ends = []
    try:
        threads = [threading.Thread(target=lambda: ends.append(client.pull("org/slow").status)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: hub.transfers("model.safetensors"))
    finally:
        hub.faults.hold.set()
    for thread in threads:
        thread.join()
    assert ends == ["success"] * 3
    assert len([seen for seen in hub.transfers("model.safetensors") if seen.server == "cdn"]) == 1


def test_a_pull_that_nobody_watches_is_stopped(server, hub):
    hub.repos["org/left"] = Repo({"config.json": b"{}", "model.safetensors": MANY_BYTES})
    hub.faults.hold = threading.Event()
    try:
        with requests.post(f"{server.url}/api/pull", json={"model": "org/left"}, stream=True, timeout=60) as response:
            assert response.headers["content-type"] == "application/x-ndjson"
            assert b"pulling manifest" in next(response.iter_lines())
            until(lambda: hub.transfers("model.safetensors"))
        until(lambda: "the download was stopped" in server.errors())
    finally:
        hub.faults.hold.set()


def test_what_cannot_be_pulled(client):
    with pytest.raises(ollama.ResponseError, match="org/none"):
        list(client.pull("org/none", stream=True))
    with pytest.raises(ollama.ResponseError, match="org/none") as refused:
        client.pull("org/none")
    assert refused.value.status_code == 404
    for name in ("no-such-alias", "/etc/passwd", "./models"):
        with pytest.raises(ollama.ResponseError, match="cannot be pulled") as refused:
            client.pull(name)
        assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="insecure") as refused:
        client.pull("org/real-GGUF", insecure=True)
    assert refused.value.status_code == 400
