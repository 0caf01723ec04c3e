"""Every metric moves under a load that should move it: three servers are made to do everything that is counted."""

import json
import re
import signal
import socket
import threading
from urllib.parse import urlsplit

import pytest
import requests
from otlp_sink import OtlpSink
from program import MODEL, ServeProcess, needs_model, run
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

# What no load can move: there is no such thing in this build, or it takes a broken disk, model or device.
NEVER = {
    "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:lora_requests_info",
    "mlxs_failed_steps_total",
    "mlxs_prefix_cache_disk_failed_writes_total",
}


class Watch(threading.Thread):
    """Scrapes a server until it is stopped; keeps every sample that was not zero at some time."""

    def __init__(self, server: ServeProcess):
        super().__init__(daemon=True)
        self.server, self.moved, self.stopping = server, set(), threading.Event()
        self.start()

    def scrape(self) -> None:
        text = requests.get(f"{self.server.url}/metrics", timeout=60).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.value != 0:
                    name = re.sub("_(bucket|sum|count)$", "", sample.name) if family.type == "histogram" else sample.name
                    self.moved |= {name, *((name, label, word) for label, word in sample.labels.items())}

    def run(self) -> None:
        while not self.stopping.wait(0.02):
            self.scrape()

    def end(self) -> set:
        self.stopping.set()
        self.join()
        self.scrape()
        return self.moved


def listed(tmp_path) -> set:
    """Every metric of the registry, and every value of the labels that have few."""
    wanted = set()
    for row in run("metrics", cache=tmp_path).out.splitlines()[2:]:
        name, _, labels, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        name = name.strip("`")
        wanted.add(name)
        for label in labels.split(";"):
            key, _, words = label.partition(":")
            if words and "_info" not in name:
                wanted |= {(name, key.strip().strip("`"), word.strip()) for word in words.split(",")}
    return wanted


def ask(server: ServeProcess, path="/v1/completions", **fields) -> requests.Response:
    body = {"max_tokens": 8, "ignore_eos": True, "user": "someone", **fields}
    return requests.post(server.url + path, json=body, timeout=300)


def at_once(*calls) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stats(server: ServeProcess) -> dict:
    return requests.get(f"{server.url}/v1/scheduler/stats", timeout=60).json()["data"][0]


def many(server: ServeProcess, count: int, **fields) -> None:
    at_once(*(lambda i=i: ask(server, **{"prompt": f"{i} " + "Rivers and lakes. " * 40, **fields}) for i in range(count)))


def few_pages(tmp_path, sink) -> set:
    """KV pages run out: preemptions, evictions, the disk tier, the queue; grammars, targets, traces, dumps, a stall."""
    flags = [
        "--kv-cache-bytes",
        "24MiB",
        "--prefix-cache-dir",
        str(tmp_path / "pages"),
        "--max-running",
        "6",
        "--trace-sample",
        "1",
    ]
    flags += [
        "--otlp-endpoint",
        sink.url,
        "--otlp-metrics-interval-ms",
        "100",
        "--stall-timeout",
        "0.005",
        "--flight-dir",
        str(tmp_path),
    ]
    server = ServeProcess(MODEL, *flags, cache=tmp_path)
    try:
        watch = Watch(server)
        at_once(
            lambda: many(server, 10, max_tokens=150, slo_ttft_ms=100_000, slo_tpot_ms=100_000),
            lambda: ask(server, prompt="Rain " * 600, slo_tpot_ms=1, max_tokens=60),
            lambda: ask(server, prompt="Late", slo_ttft_ms=2000, priority="low", max_tokens=30),
        )
        for text in ("All of it begins alike. " * 12 + "Then a river. " * 8, "All of it begins alike. " * 12 + "Or a lake! " * 8):
            ask(server, prompt=text)
            ask(server, prompt=text)
        many(server, 10)  # again, what has gone to disk
        ask(server, prompt="Short", slo_ttft_ms=1)
        ask(server, prompt="JSON:", response_format={"type": "json_object"}, ignore_eos=False, max_tokens=30)
        ask(server, prompt="One", stop=["e", "a", "o", " "], max_tokens=50)
        sink.answers = [503]
        assert ask(server, prompt="x", temperature=99).status_code == 400
        with requests.post(
            f"{server.url}/v1/completions", json={"prompt": "a", "max_tokens": 900, "stream": True}, stream=True, timeout=60
        ) as stream:
            next(stream.iter_lines())  # and leaves
        server.signal(signal.SIGUSR1)
        sink.wait(lambda: not sink.answers and len(sink.bodies["/v1/metrics"]) > 2)
        return watch.end()
    finally:
        server.close()


def swapping(tmp_path) -> set:
    """Pages go to the host; the admission window; pages that expire."""
    flags = [
        "--kv-cache-bytes",
        "24MiB",
        "--kv-swap-bytes",
        "64MiB",
        "--scheduler-preset",
        "balanced",
        "--prefix-cache-ttl",
        "0.3",
    ]
    server = ServeProcess(MODEL, *flags, cache=tmp_path)
    try:
        watch = Watch(server)
        for _ in range(3):
            many(server, 12, max_tokens=120)
        return watch.end()
    finally:
        server.close()


def clients(tmp_path) -> set:
    """Streams, WebSockets, a rate, a reader that takes nothing; model and device are made up."""
    flags = ["--requests-per-minute", "6", "--slow-reader", "cancel", "--slow-reader-timeout", "0.2"]
    server = ServeProcess("mock:tokens=1000000", *flags, cache=tmp_path)
    try:
        watch = Watch(server)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", urlsplit(server.url).port))
        body = json.dumps({"prompt": "a", "max_tokens": 900_000, "stream": True}).encode()
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        while stats(server)["paused"] == 0:
            pass
        while stats(server)["paused"] > 0:
            pass
        slow.close()
        with connect(server.url.replace("http", "ws", 1) + "/v1/ws") as websocket:
            websocket.send(json.dumps({"type": "request", "id": "a", "path": "/v1/completions", "body": {"prompt": "a"}}))
            websocket.recv(timeout=60)
        while ask(server, prompt="a", max_tokens=1).status_code != 429:
            pass
        gone = socket.create_connection(("127.0.0.1", urlsplit(server.url).port))
        gone.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        gone.close()
        return watch.end()
    finally:
        server.close()


@needs_model
@pytest.mark.usefixtures("tmp_path")
def test_every_metric_moves(tmp_path):
    sink = OtlpSink()
    folders = [tmp_path / name for name in ("few", "swap", "clients")]
    for folder in folders:
        folder.mkdir()
    try:
        moved = few_pages(folders[0], sink) | swapping(folders[1]) | clients(folders[2])
    finally:
        sink.close()
    still = {entry for entry in listed(tmp_path) - moved if (entry if isinstance(entry, str) else entry[0]) not in NEVER}
    assert still == set()
