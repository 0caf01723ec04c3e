"""`serve` as a process: its ready line, its end by signals, the ports and hosts it refuses, the registry."""

import fcntl
import hashlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from program import BIN, MODEL, ServeProcess, environment, needs_model, run

pytestmark = needs_model


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def serve(cache):
    running = []

    def start(*arguments: str) -> ServeProcess:
        running.append(ServeProcess(MODEL, *arguments, cache=cache))
        return running[-1]

    yield start
    for process in running:
        process.close()


def model_name(server: ServeProcess) -> str:
    return requests.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]["id"]


class LongAnswer:
    """A streaming request that would go on for long; begun when the first chunk is there."""

    def __init__(self, server: ServeProcess):
        body = {
            "model": model_name(server),
            "messages": [{"role": "user", "content": "Count from one to one thousand in words."}],
            "max_tokens": 1500,
            "logit_bias": {"2": -100},  # never the end
            "temperature": 0,
            "stream": True,
        }
        self.response = requests.post(f"{server.url}/v1/chat/completions", json=body, stream=True, timeout=300)
        assert self.response.status_code == 200, self.response.text
        self.lines = self.response.iter_lines()
        self.first = next(self.lines)


def test_the_curl_of_the_ready_line_works_as_printed(serve):
    server = serve()
    assert server.ready_line.count("\n") == 1
    command = server.ready_line.split("try: ", 1)[1]
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert '"choices"' in answer.stdout
    assert requests.get(f"{server.url}/health/ready", timeout=60).status_code == 200


def test_the_curl_of_the_ready_line_reaches_any_host_with_a_key(cache, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(b'key-of-alice').hexdigest()} alice\n")
    server = ServeProcess("mock:tokens=2,delay=0", "--host", "0.0.0.0", "--api-keys", str(keys), cache=cache)
    try:
        command = server.ready_line.split("try: ", 1)[1]
        assert "curl http://localhost:" in command
        monkeypatch.setenv("MLXS_API_KEY", "key-of-alice")
        answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    finally:
        server.close()
    assert '"choices"' in answer.stdout


def test_without_anything_to_reload_a_hangup_is_ignored(cache):
    server = ServeProcess("mock:tokens=2,delay=0", cache=cache)
    try:
        server.signal(signal.SIGHUP)
        while "nothing to read again" not in server.errors():
            assert server.process.poll() is None
            time.sleep(0.01)
        assert requests.get(f"{server.url}/health/ready", timeout=60).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.close()


def test_a_server_drains_when_its_terminal_is_closed(cache):
    master, slave = pty.openpty()
    command = [BIN, "serve", "mock:tokens=2,delay=0", "--port", "0"]
    server = subprocess.Popen(
        command, env=environment(cache), stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(slave)
    try:
        assert server.stdout.readline().startswith("ready: ")
        for _ in range(2):  # the shell's and the system's
            server.send_signal(signal.SIGHUP)
        assert server.wait(60) == 0
        assert "draining" in server.stderr.read()
    finally:
        server.kill()
        server.communicate()
        os.close(master)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_the_first_signal(serve, number):
    server = serve()
    server.signal(number)
    assert server.wait() == 0


def test_a_running_answer_is_finished_while_draining(serve):
    server = serve("--drain-timeout", "250")  # a busy machine may need longer than the usual 30 s for 200 tokens
    name = model_name(server)
    body = {
        "model": name,
        "prompt": "Once upon a time",
        "max_tokens": 200,
        "logit_bias": {"2": -100},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    response = requests.post(f"{server.url}/v1/completions", json=body, stream=True, timeout=300)
    lines = response.iter_lines()
    next(lines)
    server.signal(signal.SIGTERM)
    rest = [line.decode() for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert '"completion_tokens":200' in rest[-2].replace(" ", "")
    assert server.wait() == 0


def test_the_drain_ends_when_its_time_is_over(serve):
    server = serve("--drain-timeout", "0.2")
    LongAnswer(server)
    server.signal(signal.SIGTERM)
    assert server.wait(60) == 0


def test_a_second_signal_ends_at_once(serve):
    server = serve("--drain-timeout", "600")
    answer = LongAnswer(server)
    server.signal(signal.SIGTERM)
    while "draining" not in server.errors():
        time.sleep(0.01)
    server.signal(signal.SIGTERM)
    assert server.wait(30) == 1
    with pytest.raises(requests.RequestException):
        for _ in answer.lines:
            pass


def test_before_it_is_ready_the_first_signal_ends_it(tmp_path):
    """Nothing to drain yet. It is kept from getting ready by the lock of another pull of the same model."""
    lock = tmp_path / "locks" / "smollm2.lock"
    lock.parent.mkdir()
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [BIN, "serve", "smollm2", "--port", "0"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment(tmp_path), stdout=pipe, stderr=pipe, text=True)
        while "wait" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 1
        out, err = process.communicate()
        assert out == ""
        assert "error: interrupted" in err


def test_a_port_in_use_is_named(cache):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", MODEL, "--port", str(port), cache=cache)
    assert (result.status, result.out) == (1, "")
    assert str(port) in result.err
    assert "in use" in result.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_kept_out_unless_asked(cache, host):
    result = run("serve", MODEL, "--host", host, "--port", "0", cache=cache)
    assert (result.status, result.out) == (1, "")
    assert host in result.err
    assert "--insecure" in result.err


def test_insecure_listens_on_every_address(serve):
    server = serve("--host", "0.0.0.0", "--insecure")
    port = server.url.rsplit(":", 1)[1]
    assert requests.get(f"http://127.0.0.1:{port}/health/live", timeout=60).status_code == 200


def test_two_models_are_served_by_one_process(cache, tmp_path):
    other = tmp_path / "other.gguf"
    shutil.copy(MODEL, other)
    server = ServeProcess(MODEL, str(other), cache=cache)
    try:
        names = [model["id"] for model in requests.get(f"{server.url}/v1/models", timeout=60).json()["data"]]
        assert len(names) == 2
        assert "other" in names
        for name in names:
            body = {"model": name, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
            answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
            assert "Paris" in answer["choices"][0]["text"]
    finally:
        server.close()


def test_two_files_of_one_name_are_served_by_two(cache, tmp_path):
    other = tmp_path / Path(MODEL).name
    shutil.copy(MODEL, other)
    refused = run("serve", MODEL, str(other), "--port", "0", cache=cache)
    assert (refused.status, refused.out) == (1, "")
    assert "--served-model-name" in refused.err
    server = ServeProcess(MODEL, str(other), "--served-model-name", "first", cache=cache)
    try:
        names = [model["id"] for model in requests.get(f"{server.url}/v1/models", timeout=60).json()["data"]]
        assert sorted(names) == sorted(["first", Path(MODEL).stem])
    finally:
        server.close()


def test_a_cache_that_holds_less_than_a_context_limits_it(serve):
    server = serve("--kv-cache-bytes", "20MiB")
    name = model_name(server)
    assert f"the context of '{name}' is limited to 896 of its 8192 tokens: kv_cache_bytes = 20971520" in server.errors()
    assert "context 896," in server.errors()
    assert requests.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]["max_model_len"] == 896
    tokens = requests.post(f"{server.url}/tokenize", json={"prompt": "a"}, timeout=60).json()
    assert tokens["max_model_len"] == 896
    assert requests.get(f"{server.url}/api/ps", timeout=60).json()["models"][0]["context_length"] == 896
    for fields in ({"prompt": [20] * 1001}, {"prompt": [20] * 600, "max_tokens": 600}):
        refused = requests.post(f"{server.url}/v1/completions", json=fields, timeout=60)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "896" in error["message"]
        assert "8192: its KV cache holds no more" in error["message"]
        assert "kv_cache_bytes" in error["message"]


def test_more_choices_than_the_queue_can_hold_are_refused_for_good(serve, tmp_path):
    config = tmp_path / "runtime.yaml"
    config.write_text("scheduling: {priority_scheduler: {max_queue_depth: 2}}\n")
    server = serve("--config", str(config), "--max-running", "1")
    for n, status in ((2, 200), (3, 400), (4, 400), (0, 400)):
        answer = requests.post(f"{server.url}/v1/completions", json={"prompt": "a", "max_tokens": 1, "n": n}, timeout=60)
        assert answer.status_code == status, answer.text
        if status == 400:
            assert answer.json()["error"]["param"] == "n"
            assert f"n = {n} is out of range (n must be 1 … 2: " in answer.json()["error"]["message"]
            assert "max_queue_depth" in answer.json()["error"]["message"]
    body = {"prompt": ["a", "b", "c"], "max_tokens": 1}
    assert requests.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 400


def redis_program() -> str | None:
    # Debian's redis-tools carries the server under the name of its checker; it goes by the name it is called with.
    return next(filter(None, map(shutil.which, ("redis-server", "valkey-server", "redis-check-rdb"))), None)


@pytest.fixture
def redis():
    program = redis_program()
    if program is None:
        pytest.skip("no redis-server: scripts/bootstrap.sh test installs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_the_registry_lists_a_server_until_it_drains(cache, serve, redis):
    assert run("ps", "--registry", redis, "--json", cache=cache).json() == []
    server = serve("--registry", redis)
    deadline = time.monotonic() + 60
    listed = []
    while not listed and time.monotonic() < deadline:
        listed = run("ps", "--registry", redis, "--json", cache=cache).json()
    assert [entry["endpoint"] for entry in listed] == [server.url]
    assert listed[0]["models"] == [model_name(server)]
    assert listed[0]["pid"] == server.process.pid
    table = run("ps", "--registry", redis, cache=cache).out
    assert server.url in table
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert run("ps", "--registry", redis, "--json", cache=cache).json() == []


def test_a_registry_that_is_away_does_not_stop_the_server(cache, serve):
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = f"redis://127.0.0.1:{free.getsockname()[1]}"
    server = serve("--registry", away)
    assert requests.get(f"{server.url}/health/ready", timeout=60).status_code == 200
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "registry" in server.errors()
    result = run("ps", "--registry", away, cache=cache)
    assert result.status == 1
    assert "not reachable" in result.err
