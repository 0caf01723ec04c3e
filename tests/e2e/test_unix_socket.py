"""`serve --unix-socket PATH`: who may connect, what an earlier server left behind, curl."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from program import ServeProcess, needs_program, run

pytestmark = needs_program


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


class UnixServe(ServeProcess):
    """On a socket only: its URL is curl's arguments."""

    def __init__(self, path: Path, *arguments: str, cache: Path):
        self.path = path
        self.log = open(cache / "serve.log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [os.environ["MLXS_BIN"], "serve", "mock:tokens=5", "--unix-socket", str(path), *arguments],
            env={**os.environ, "MLXS_CACHE_DIR": str(cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.ready_line = self.process.stdout.readline()
        assert f"on unix:{path} " in self.ready_line, self.errors()

    def curl(self, route: str, *arguments: str) -> str:
        command = ["curl", "-sS", "--max-time", "60", "--unix-socket", str(self.path), f"http://localhost{route}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_talks_to_it_in_both_versions(folder):
    path = folder / "mlxs.sock"
    server = UnixServe(path, cache=folder)
    try:
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
        for version in ("--http1.1", "--http2-prior-knowledge"):
            assert json.loads(server.curl("/v1/models", version))["data"][0]["id"] == "mock"
            assert "data: [DONE]" in server.curl("/v1/chat/completions", version, "-d", body)
        assert json.loads(server.curl("/v1/requests"))["data"]
    finally:
        server.close()


def test_its_mode_and_its_end(folder):
    path = folder / "mlxs.sock"
    server = UnixServe(path, cache=folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()
    server.close()
    other = UnixServe(path, "--unix-socket-mode", "660", cache=folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    other.close()


def test_a_killed_servers_file_is_replaced_and_a_living_ones_is_not(folder):
    path = folder / "mlxs.sock"
    killed = UnixServe(path, cache=folder)
    killed.close()  # SIGKILL
    assert path.exists()
    server = UnixServe(path, cache=folder)
    result = run("serve", "mock", "--unix-socket", str(path), cache=folder)
    assert result.status == 1
    assert "listening" in result.err
    assert server.curl("/health/live")
    server.close()


def test_what_is_no_socket_stays(folder):
    path = folder / "file"
    path.write_text("mine")
    result = run("serve", "mock", "--unix-socket", str(path), cache=folder)
    assert result.status == 1
    assert "no socket" in result.err
    assert path.read_text() == "mine"
    result = run("serve", "mock", "--unix-socket", str(folder / ("x" * 200)), cache=folder)
    assert result.status == 1
    assert "bytes" in result.err
    result = run("serve", "mock", "--unix-socket", str(folder / "s"), "--unix-socket-mode", "9", cache=folder)
    assert result.status == 1
    assert "permission bits" in result.err


def test_a_port_as_well_if_one_is_asked_for(folder):
    path = folder / "mlxs.sock"
    server = ServeProcess("mock:tokens=5", "--unix-socket", str(path), cache=folder)  # with --port 0
    try:
        assert server.url.startswith("http://127.0.0.1:")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(path))
            client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        server.close()
