"""The log: JSON lines or text, one line a request, no prompts unless asked for, levels that change while it runs."""

import json
import re
import signal

import pytest
import requests
from conftest import Api
from program import MODEL, ServeProcess, needs_model

SECRET = "the secret is xylophone"


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(*arguments):
        started.append(ServeProcess(MODEL, *arguments, cache=tmp_path))
        return Api(started[-1])

    yield start
    for process in started:
        process.close()


def chat(api, request_id, **fields):
    body = {"model": api.model, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, **fields}
    return requests.post(f"{api.url}/v1/chat/completions", json=body, headers={"x-request-id": request_id}, timeout=120)


def ended(api) -> str:
    """What it logged, when it has written everything."""
    api.process.signal(signal.SIGTERM)
    assert api.process.wait() == 0
    return api.process.errors()


@needs_model
def test_json_lines(serve):
    api = serve("--log-format", "json")
    trace = "0af7651916cd43dd8448eb211c80319c"
    body = {"model": api.model, "prompt": SECRET, "max_tokens": 4, "ignore_eos": True, "n": 2}
    headers = {"x-request-id": "two", "traceparent": f"00-{trace}-b7ad6b7169203331-00"}
    usage = requests.post(f"{api.url}/v1/completions", json=body, headers=headers, timeout=120).json()["usage"]
    assert chat(api, "bad", temperature=9).status_code == 400
    api.get("/health")
    api.get("/nothing%22%0a")
    text = ended(api)
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]) for line in lines)
    assert {line["level"] for line in lines} <= {"info", "warning"}
    access = {line["request_id"]: line for line in lines if line.get("event") == "access"}
    two = access["two"]
    assert (two["method"], two["path"], two["status"], two["model"]) == ("POST", "/v1/completions", 200, api.model)
    assert (two["trace_id"], two["finish"], two["stream"]) == (trace, "length", False)
    assert (two["generated_tokens"], two["prompt_tokens"]) == (8, 2 * usage["prompt_tokens"])
    assert 0 < two["ttft_ms"] <= two["e2e_ms"]
    assert access["bad"]["status"] == 400
    paths = [line["path"] for line in access.values()]
    assert "/health" not in paths  # at level debug only
    assert '/nothing"\n' in paths
    assert any("draining" in line.get("msg", "") for line in lines)


@needs_model
def test_prompts_stand_there_only_if_asked_for(serve):
    api = serve("--log-format", "json", "--log-prompts")
    assert chat(api, "one").ok
    lines = [json.loads(line) for line in ended(api).splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "one"]
    assert line["prompt"][-1] == {"role": "user", "content": SECRET}


@needs_model
def test_text_lines_and_none(serve):
    api = serve("--log-level", "debug")
    assert chat(api, "plain").ok
    text = ended(api)
    assert re.search(r"info POST /v1/chat/completions 200 [\d.]+ ms id=plain trace=[0-9a-f]{32} model=\S+ prompt=", text)
    assert SECRET not in text
    api = serve("--no-access-log")
    assert chat(api, "quiet").ok
    assert "id=quiet" not in ended(api)


@needs_model
@pytest.mark.parametrize("form", ["pretty", "json"])
def test_what_clients_send_begins_no_line_and_moves_no_cursor(serve, form):
    """Paths, ids and bodies with the ends of lines, escape sequences and bytes that are no text."""
    api = serve("--log-format", form, "--log-level", "debug", "--log-prompts")
    forged = "%0d%0a2026-01-01T00:00:00.000%20info%20FORGED%1b%5b2J%c2%9b1m%ff%e2%80%a8%7f"
    assert api.get(f"/v1/models/{forged}").status_code == 404
    assert api.get(f"/v1/requests/{forged}").status_code == 404
    body = {"model": "no\nFORGED\x1b[2J\x9b", "prompt": "a\r\nFORGED \x1b[2J\u2028\x7f", "max_tokens": 1, "user": "u\nFORGED"}
    assert api.post("/v1/completions", body).status_code == 404
    assert api.post("/v1/completions", {**body, "model": api.model}).ok
    with api.connect() as client:  # no HTTP at all, and a header that may not be
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx-request-id: a\x1bFORGED\r\ntraceparent: \nFORGED\r\n\r\n")
        client.recv(1000)
    api.process.signal(signal.SIGTERM)
    assert api.process.wait() == 0
    log = (api.process.log_path).read_bytes()
    text = log.decode()  # and so it is UTF-8
    assert "FORGED" in text
    for line in text.split("\n")[:-1]:
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029" for c in line), repr(line)
        if form == "json":
            json.loads(line)
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (debug|info|warning|error) ", line), line


@needs_model
def test_the_level_changes_while_it_runs(serve):
    api = serve("--log-level", "warn")
    assert chat(api, "unseen").ok
    assert api.get("/v1/log").json() == {"level": "warn", "format": "pretty"}
    answer = requests.put(f"{api.url}/v1/log", json={"level": "info"}, timeout=60)
    assert answer.json() == {"level": "info", "format": "pretty"}
    assert chat(api, "seen").ok
    for level in ("trace", "critical", "info"):  # all that --log-level takes
        assert requests.put(f"{api.url}/v1/log", json={"level": level}, timeout=60).json()["level"] == level
    wrong = requests.put(f"{api.url}/v1/log", json={"level": "loud"}, timeout=60)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "level")
    api.process.signal(signal.SIGUSR2)
    while api.get("/v1/log").json()["level"] != "debug":
        pass
    api.get("/health")
    api.process.signal(signal.SIGUSR2)
    while api.get("/v1/log").json()["level"] != "info":
        pass
    text = ended(api)
    assert "id=unseen" not in text
    assert "id=seen" in text
    assert re.search(r"debug GET /health 200", text)
