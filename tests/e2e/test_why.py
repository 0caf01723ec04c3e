"""Why a request was slow: its record over HTTP, in a header and in the terminal; and who may see whose."""

import hashlib
import http.client
import json
import re
import socket
import threading

import pytest
import requests
from conftest import Api
from program import MODEL, ServeProcess, needs_model, run

PROMPT = "Write about rivers. " * 60


def record(api: Api, request_id: str, **headers) -> dict:
    response = api.get(f"/v1/requests/{request_id}", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def expect_sums(report: dict) -> None:
    assert report["state"] == "done"
    assert sum(report["parts"].values()) == pytest.approx(report["e2e_seconds"], rel=0.01)
    for choice in report["choices"]:
        assert sum(choice["parts"].values()) == pytest.approx(choice["total_seconds"], rel=0.01)


def complete(api: Api, request_id: str, **fields) -> requests.Response:
    body = {"model": api.model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "ignore_eos": True, **fields}
    return api.post("/v1/completions", body, headers={"x-request-id": request_id})


def test_a_record_accounts_for_the_whole_time(api):
    usage = complete(api, "why-plain", prompt="Once upon a time. " + PROMPT).json()["usage"]
    report = record(api, "why-plain")
    expect_sums(report)
    assert (report["status"], report["path"], report["model"]) == (200, "/v1/completions", api.model)
    (choice,) = report["choices"]
    assert choice["finish"] == "length"
    assert (choice["prompt_tokens"], choice["generated_tokens"]) == (usage["prompt_tokens"], 12)
    chunks = choice["prefill"]["chunks"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert choice["prefill"]["cached_tokens"] == cached == chunks[0]["start"]
    assert sum(chunk["tokens"] for chunk in chunks) == usage["prompt_tokens"] - cached
    gaps = choice["decode"]["inter_token_seconds"]
    assert 0 < gaps["p50"] <= gaps["p95"] <= gaps["p99"] <= gaps["max"]
    assert set(report["parts"]) >= {"prepare", "tokenize", "queue", "prefill", "decode"}
    assert report["why"].split(" took ")[0] in report["parts"]


def test_it_says_where_the_prompt_left_the_cache(api):
    head = "All rivers of this test have the same source. " * 12
    # Both go on for more than a page of 16 tokens: less is never cached and so never missed.
    north, lake = head + "The Rhine flows north. " * 8, head + "A lake has no current at all. " * 8
    complete(api, "why-first", prompt=north)
    first = record(api, "why-first")["choices"][0]
    complete(api, "why-second", prompt=lake)
    report = record(api, "why-second")
    choice = report["choices"][0]
    assert choice["prefill"]["miss"]["reason"] == "diverged"
    at = choice["prefill"]["miss"]["token"]
    assert choice["prefill"]["cached_tokens"] <= at < min(choice["prompt_tokens"], first["prompt_tokens"])
    complete(api, "why-again", prompt=lake)
    assert record(api, "why-again")["choices"][0]["prefill"]["miss"] is None


def test_several_choices_and_structured_output(api):
    complete(api, "why-choices", n=2, max_tokens=5, temperature=1, seed=1)
    report = record(api, "why-choices")
    expect_sums(report)
    assert len(report["choices"]) == 2
    complete(api, "why-mask", max_tokens=20, response_format={"type": "json_object"})
    report = record(api, "why-mask")
    expect_sums(report)
    assert 0 < report["choices"][0]["decode"]["mask_seconds"] < report["e2e_seconds"]


def hold_a_place(api: Api, request_id: str, **fields):
    """A stream that is on its way, for as long as the caller keeps it."""
    body = {"model": api.model, "prompt": PROMPT, "max_tokens": 4000, "stream": True, "ignore_eos": True, **fields}
    headers = {"x-request-id": request_id}
    response = requests.post(f"{api.url}/v1/completions", json=body, headers=headers, stream=True, timeout=120)
    lines = response.iter_lines()
    next(lines)
    return response, lines


@needs_model
def test_who_waited_learns_for_whom(tmp_path):
    process = ServeProcess(MODEL, "--max-running", "1", cache=tmp_path)
    try:
        api = Api(process)
        holder, _ = hold_a_place(api, "holder")
        threads = [threading.Thread(target=complete, args=(api, f"one-{i}")) for i in range(2)]
        for thread in threads:
            thread.start()
        while api.stats()["waiting"] < len(threads):
            pass
        holder.close()
        for thread in threads:
            thread.join()
        reports = [record(api, f"one-{i}") for i in range(2)]
    finally:
        process.close()
    for report in reports:
        expect_sums(report)
        queue = report["choices"][0]["queue"]
        assert queue["no_place_seconds"] > 0
        assert queue["running_ahead"] == 1
        assert [other["id"] for other in queue["running"]] == ["holder"]


@needs_model
def test_who_went_first_and_why(tmp_path):
    process = ServeProcess(MODEL, "--max-running", "1", cache=tmp_path)
    try:
        api = Api(process)
        holder, lines = hold_a_place(api, "holder", user="alice")
        threads = []
        for request_id, fields in {
            "alices": {"user": "alice"},
            "bobs": {"user": "bob"},
            "urgent": {"user": "carol", "priority": "high"},
        }.items():
            threads.append(threading.Thread(target=complete, args=(api, request_id), kwargs=fields))
            threads[-1].start()
            while api.stats()["waiting"] < len(threads):
                pass
        for _ in range(20):  # served to alice while bob waits
            next(lines)
        holder.close()
        for thread in threads:
            thread.join()
        queues = {name: record(api, name)["choices"][0]["queue"] for name in ("alices", "bobs", "urgent")}
        for name in queues:
            expect_sums(record(api, name))
        shown = run("why", "alices", "--url", api.url, cache=tmp_path)
    finally:
        process.close()
    first = {name: [(other["id"], other["why"]) for other in queue["went_first"]["requests"]] for name, queue in queues.items()}
    assert first == {"urgent": [], "bobs": [("urgent", "priority")], "alices": [("urgent", "priority"), ("bobs", "fairness")]}
    assert queues["alices"]["went_first"]["total"] == 2
    assert queues["alices"]["went_first"]["why"] == {"priority": 1, "fairness": 1}
    assert [seen["id"] for seen in queues["alices"]["running"]] == ["holder"]
    assert all(queue["no_place_seconds"] > 0 for queue in queues.values())
    assert re.search(r"went first at +[\d.]+ ms: bobs \(\d+ prompt tokens\): fairness", shown.out)
    assert "2 got a place first: 1 had priority, 1 of tenants that had got less" in shown.out


@needs_model
@pytest.mark.parametrize("swap", ["0", "64MiB"])
def test_preempted_requests_account_for_their_time_and_say_for_whom(tmp_path, swap):
    process = ServeProcess(MODEL, "--kv-cache-bytes", "24MiB", "--kv-swap-bytes", swap, cache=tmp_path)
    names = [f"p{i}" for i in range(6)]
    try:
        api = Api(process)
        threads = [
            threading.Thread(target=complete, args=(api, name), kwargs={"prompt": f"{name} " + PROMPT[:400], "max_tokens": 300})
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reports = [record(api, name) for name in names]
        shown = [run("why", name, "--url", api.url, cache=tmp_path).out for name in names]
    finally:
        process.close()
    for report in reports:
        expect_sums(report)
        assert report["choices"][0]["generated_tokens"] == 300
    preempted = [(report, text) for report, text in zip(reports, shown, strict=True) if report["choices"][0]["preemptions"]]
    assert preempted
    for report, text in preempted:
        choice = report["choices"][0]
        for preemption in choice["preemptions"]:
            assert preemption["for"]["id"] in names
            assert 0 < preemption["at_seconds"] < choice["total_seconds"]
            assert preemption["lost_tokens"] > 0
        assert choice["parts"]["preempted"] > 0
        assert f"preempted at {choice['preemptions'][0]['at_seconds'] * 1e3:.1f} ms for p" in text


@needs_model
def test_a_client_that_reads_slowly_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXS_SERVER_SEND_BUFFER_BYTES", "4096")
    process = ServeProcess("mock:tokens=20000,delay=0", "--stream-buffer-bytes", "4096", cache=tmp_path)
    try:
        api = Api(process)
        body = json.dumps({"model": api.model, "prompt": "a", "max_tokens": 20000, "stream": True, "ignore_eos": True}).encode()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(120)
        client.connect(("127.0.0.1", api.port))
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-request-id: slow\r\nconnection: close\r\ncontent-length: {len(body)}"
        )
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        while api.stats()["paused"] == 0:
            pass
        while client.recv(1 << 16):
            pass
        report = record(api, "slow")
        shown = run("why", "slow", "--url", api.url, cache=tmp_path).out
    finally:
        process.close()
    expect_sums(report)
    assert report["socket_wait_seconds"] > 0
    assert report["choices"][0]["decode"]["pauses"] >= 1
    assert report["parts"]["paused"] > 0
    assert "the client's socket was full for" in shown


@needs_model
def test_a_client_that_leaves_has_a_record_too(api):
    body = {"model": api.model, "prompt": PROMPT, "max_tokens": 500, "stream": True, "ignore_eos": True}
    with requests.post(
        f"{api.url}/v1/completions", json=body, headers={"x-request-id": "why-left"}, stream=True, timeout=60
    ) as response:
        next(response.iter_lines())
        assert record(api, "why-left")["state"] == "running"
    for _ in range(10000):
        report = record(api, "why-left")
        if report["state"] == "done":
            break
    expect_sums(report)
    assert report["client_gone"]
    assert report["choices"][0]["finish"] == "cancelled"


def timing(header: str) -> dict[str, float]:
    return {name: float(value) for name, _, value in (part.partition(";dur=") for part in header.split(", "))}


@pytest.mark.parametrize("stream", [False, True])
def test_the_timing_header_on_request(api, stream):
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    body = json.dumps({"model": api.model, "prompt": "Hello", "max_tokens": 5, "stream": stream})
    connection.request("POST", "/v1/completions", body, {"x-mlxs-timing": "1"})
    response = connection.getresponse()
    if stream:  # after the last chunk, where http.client does not look
        assert response.getheader("trailer") == "x-mlxs-timing"
        tail = read_to_trailers(response.fp)
        parts = timing(tail.split("x-mlxs-timing: ")[1].split("\r\n")[0])
    else:
        parts = timing(response.getheader("x-mlxs-timing"))
    connection.close()
    assert sum(parts.values()) - parts["total"] == pytest.approx(parts["total"], rel=0.01)
    assert "x-mlxs-timing" not in api.post("/v1/completions", {"model": api.model, "prompt": "a"}).headers


def read_to_trailers(raw) -> str:
    while size := int(raw.readline(), 16):
        raw.read(size + 2)
    lines = []
    while (line := raw.readline().decode()) not in ("\r\n", ""):
        lines.append(line)
    return "".join(lines)


def test_the_command_says_it_in_words(api, tmp_path):
    complete(api, "why-cli")
    shown = run("why", "why-cli", "--url", api.url, cache=tmp_path)
    assert shown.status == 0
    assert "why-cli  POST /v1/completions" in shown.out
    assert " took " in shown.out
    assert "between tokens: p50" in shown.out
    listed = run("why", "--url", api.url, "--limit", "3", cache=tmp_path)
    assert listed.out.splitlines()[1].startswith("why-cli ")
    for suffix in ("/", "/v1", "/v1/"):
        assert run("why", "why-cli", "--url", api.url + suffix, cache=tmp_path).out == shown.out
    as_json = run("why", "why-cli", "--url", api.url, "--json", cache=tmp_path).json()
    assert as_json["id"] == "why-cli"
    missing = run("why", "no-such", "--url", api.url, cache=tmp_path)
    assert (missing.status, missing.out) == (1, "")
    assert "no record of a request 'no-such'" in missing.err


def test_bad_limits_are_named(api):
    for query in ["limit=0", "limit=1001", "limit=x", "limit=3x", "n=3"]:
        response = api.get(f"/v1/requests?{query}")
        assert response.status_code == 400, query
        assert response.json()["error"]["param"] == "limit"
    assert api.get("/v1/requests/none").status_code == 404


@needs_model
def test_a_tenant_sees_its_own_and_the_ring_is_bounded(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{hashlib.sha256(name.encode()).hexdigest()} {name}\n" for name in ("alice", "bob")))
    monkeypatch.setenv("MLXS_API_KEY", "ops")
    process = ServeProcess(MODEL, "--api-keys", str(keys), "--keep-requests", "2", cache=tmp_path)

    def ask(path, key):
        return requests.get(process.url + path, headers={"x-api-key": key}, timeout=60)

    def generate(key, request_id):
        body = {"prompt": "a", "max_tokens": 2, "user": "mallory"}
        headers = {"x-api-key": key, "x-request-id": request_id}
        assert requests.post(f"{process.url}/v1/completions", json=body, headers=headers, timeout=60).ok

    try:
        generate("alice", "first")
        generate("alice", "of-alice")
        generate("bob", "of-bob")
        assert ask("/v1/requests/of-alice", "alice").json()["tenant"] == "alice"
        assert ask("/v1/requests/of-alice", "bob").status_code == 404
        assert ask("/v1/requests/of-alice", "ops").status_code == 200
        assert ask("/v1/requests/first", "ops").status_code == 404  # two are kept
        ids = {key: [r["id"] for r in ask("/v1/requests", key).json()["data"]] for key in ("alice", "bob", "ops")}
        assert ids == {"alice": ["of-alice"], "bob": ["of-bob"], "ops": ["of-bob", "of-alice"]}
        assert requests.get(f"{process.url}/v1/requests/of-bob", timeout=60).status_code == 401
    finally:
        process.close()
