"""The flight recorder: a dump at SIGUSR1, at a stall and at a crash, and the trace that the command makes of it."""

import json
import re
import signal
import subprocess
import threading
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from conftest import Api
from program import BIN, MODEL, ServeProcess, environment, needs_model, run


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(*arguments):
        started.append(ServeProcess(MODEL, "--flight-dir", str(tmp_path / "dumps"), *arguments, cache=tmp_path))
        return Api(started[-1])

    yield start
    for process in started:
        process.close()


def complete(api, request_id, **fields):
    body = {"model": api.model, "prompt": "Once upon a time " * 8, "max_tokens": 8, "ignore_eos": True, **fields}
    return requests.post(f"{api.url}/v1/completions", json=body, headers={"x-request-id": request_id}, timeout=120)


def dump_of(api, words: str) -> Path:
    """The file that the log names; its line comes when it is written."""
    while not (found := re.search(rf"{words}: the last \d+ steps are in (\S+)", api.process.errors())):
        assert api.process.process.poll() is None
    return Path(found[1])


def trace_of(source, tmp_path) -> dict:
    shown = run("trace", str(source), "-o", "-", cache=tmp_path)
    assert shown.status == 0, shown.err
    return json.loads(shown.out)


def expect_form(trace: dict) -> None:
    """The Trace Event Format, as Perfetto and chrome://tracing read it: each phase's fields, named lanes, steps in order."""
    named, lanes, steps = set(), set(), defaultdict(list)
    for event in trace["traceEvents"]:
        phase, lane = event["ph"], (event["pid"], event["tid"])
        assert isinstance(event["name"], str) and event["name"]
        assert all(isinstance(number, int) for number in lane)
        if phase == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            named |= {event["pid"]} if event["name"] == "process_name" else {lane}
            continue
        assert event["ts"] >= 0
        lanes |= {event["pid"]}
        if phase == "C":
            assert event["args"] and all(value >= 0 for value in event["args"].values())
            continue
        lanes |= {lane}
        if phase == "i":
            assert event["s"] == "t"
            continue
        assert phase == "X" and event["dur"] >= 0
        if number := re.fullmatch(r"step (\d+)", event["name"]):
            steps[event["pid"]].append((int(number[1]), event["ts"], event["ts"] + event["dur"]))
    assert lanes - named == set()
    begins = [event["ts"] for event in trace["traceEvents"] if event["ph"] != "M"]
    assert begins == sorted(begins)
    for of_model in steps.values():
        assert [number for number, _, _ in of_model] == list(range(of_model[0][0], of_model[0][0] + len(of_model)))
        assert all(before[1] <= after[1] for before, after in pairwise(of_model))


def expect_nested(trace: dict) -> dict:
    """Slices by (process, thread); of a lane, any two lie apart or one in the other."""
    lanes = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            lanes[event["pid"], event["tid"]].append(event)
    enough = 1e-3  # µs: times are nanoseconds
    for events in lanes.values():
        open_until = []
        for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
            end = event["ts"] + event["dur"]
            while open_until and open_until[-1] <= event["ts"] + enough:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + enough, event
            open_until.append(end)
    return lanes


@needs_model
def test_what_ran_is_in_the_trace(serve, tmp_path):
    api = serve()
    threads = [threading.Thread(target=complete, args=(api, f"lane-{i}")) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    api.process.signal(signal.SIGUSR1)
    path = dump_of(api, "asked")
    assert path.stat().st_mode & 0o077 == 0
    trace = trace_of(path, tmp_path)
    expect_form(trace)
    lanes = expect_nested(trace)
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert {name for name in names.values() if name.startswith("lane-")} == {"lane-0", "lane-1", "lane-2"}
    (engine,) = [lane for lane, name in names.items() if name == "steps"]
    steps = [e for e in lanes[engine] if e["name"].startswith("step ")]
    parts = [e for e in lanes[engine] if not e["name"].startswith("step ")]
    assert sum(e["args"]["prefill_tokens"] + e["args"]["decode_rows"] for e in steps) >= 3 * 7
    assert sum(e["dur"] for e in parts) == pytest.approx(sum(e["dur"] for e in steps), rel=0.02)
    for lane, name in names.items():
        if not name.startswith("lane-"):
            continue
        shares = [e for e in lanes[lane] if e["name"] in ("prefill", "decode")]
        report = api.get(f"/v1/requests/{name}").json()["choices"][0]
        computed = sum(e["args"]["tokens"] for e in shares)
        assert computed == report["prompt_tokens"] - report["prefill"]["cached_tokens"] + report["generated_tokens"] - 1
        (whole,) = [e for e in lanes[lane] if e["name"] == name]
        assert whole["args"] == {"begins_before": False, "goes_on": False}
    # The same from the running server, without a file.
    live = trace_of(api.url, tmp_path)
    assert live["otherData"]["steps"] == trace["otherData"]["steps"]


@needs_model
def test_a_stall_is_noticed(serve, tmp_path):
    api = serve("--stall-timeout", "0.005")  # any prompt's step takes longer
    assert complete(api, "slow", prompt="Rivers and lakes " * 150).ok
    trace_of(dump_of(api, "stall"), tmp_path)
    assert "no step has ended for" in api.process.errors()
    metrics = api.get("/metrics").text
    assert float(re.search(r"^mlxs_stalls_total (\S+)$", metrics, re.MULTILINE)[1]) >= 1


@needs_model
def test_a_crash_leaves_its_steps(serve, tmp_path):
    api = serve()
    assert complete(api, "before").ok
    api.process.signal(signal.SIGSEGV)
    assert api.process.wait() != 0
    path = Path(re.search(r"crashed; the last steps are in (\S+)", api.process.errors())[1])
    trace = trace_of(path, tmp_path)
    expect_form(trace)
    assert trace["otherData"]["reason"] == "crash"
    assert any(e["args"].get("name") == "before" for e in trace["traceEvents"] if e["ph"] == "M")


@needs_model
def test_it_can_be_turned_off(serve, tmp_path):
    api = serve("--flight-steps", "0")
    api.process.signal(signal.SIGUSR1)
    assert api.get("/v1/flight").status_code == 404
    shown = run("trace", api.url, cache=tmp_path)
    assert shown.status == 1
    assert "--flight-steps 0" in shown.err


def test_what_is_no_dump_is_refused(tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"x" * 5000)
    for source, words in ((other, "it begins with other bytes"), (tmp_path / "none", "cannot be read")):
        shown = subprocess.run(
            [BIN, "trace", str(source)], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert shown.returncode == 1
        assert words in shown.stderr
