"""The openai package for Node, pinned and installed here, against the server: what it hears is what Python's hears."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import endpoint

SOURCE = Path(__file__).parent / "openai_node"
FRANCE = "What is the capital of France? Answer with one word."


@pytest.fixture(scope="module")
def package():
    """The folder with the package: installed once a build folder, as the lock file says."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node is not installed: scripts/bootstrap.sh test")
    folder = Path(os.environ.get("MLXS_BUILD_DIR", SOURCE)) / "openai_node"
    folder.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    lock = (SOURCE / "package-lock.json").read_text()
    installed = folder / "node_modules" / "installed.lock"
    if not installed.exists() or installed.read_text() != lock:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        installed.write_text(lock)
    return folder


@pytest.fixture(scope="module")
def heard(package, api):
    command = ["node", "client.mjs", f"{api.url}/v1", api.model]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def heard_by_node(heard, heard_by_clients):
    version = json.loads((SOURCE / "package.json").read_text())["dependencies"]["openai"]
    for method, path, kind in heard["calls"]:
        heard_by_clients.add((f"OpenAI/Node {version}", endpoint(method, path), "event-stream" in kind))


def test_chats_and_streams(heard, api):
    ours = api.chat(FRANCE, temperature=0, max_tokens=20)
    assert heard["models"] == [api.model]
    assert heard["chat"]["choices"] == ours["choices"]
    assert heard["streamed"]["text"] == ours["choices"][0]["message"]["content"]
    assert heard["streamed"]["usage"]["completion_tokens"] == ours["usage"]["completion_tokens"]
    assert heard["completion"] == api.complete("Once upon a time", temperature=0, max_tokens=8)["choices"][0]["text"]


def test_calls_and_schemas(heard):
    assert heard["call"]["name"] == "go"
    assert json.loads(heard["call"]["arguments"])["city"] in ("Paris", "Rome")
    assert heard["parsed"]["city"] in ("Paris", "Rome")
    assert [place["city"] for place in heard["ran"]] == [json.loads(heard["call"]["arguments"])["city"]]


def test_responses(heard, api):
    assert (
        heard["response"] == heard["kept"] == api.chat(FRANCE, temperature=0, max_tokens=20)["choices"][0]["message"]["content"]
    )
    assert heard["events"][0] == "response.created"
    assert heard["events"][-1] in ("response.completed", "response.incomplete")
    assert "response.output_text.delta" in heard["events"]


def test_errors_are_the_packages_own(heard):
    assert heard["gone"] == {"name": "NotFoundError", "status": 404, "code": "not_found", "param": "response_id"}
    assert heard["wrong"] == {"name": "BadRequestError", "status": 400, "code": "invalid_argument", "param": "temperature"}
    assert heard["unknown"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}


def test_an_aborted_stream_ends_its_work(heard, api):
    assert heard["aborted"]
    deadline = time.monotonic() + 60
    while api.stats()["running"] + api.stats()["waiting"] > 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
