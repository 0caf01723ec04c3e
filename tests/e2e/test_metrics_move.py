"""Every metric of the registry moves on the built program, or stands below with where else it is seen to move. Each test names
what it moves and goes on until it did, so a slow machine takes longer and fails no sooner; the last one tells whether a name
is missing."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests
from otlp_sink import OtlpSink
from program import MODEL, ServeProcess, needs_model, needs_program, run
from prometheus_client.parser import text_string_to_metric_families
from tiny_llama import write_tiny_llama
from websockets.sync.client import connect

ELSEWHERE = {
    "nothing of the kind here; 0 for dashboards and autoscalers": {
        "vllm:spec_decode_num_drafts_total",
        "vllm:spec_decode_num_draft_tokens_total",
        "vllm:spec_decode_num_accepted_tokens_total",
        "vllm:lora_requests_info",
    },
    "copies of the mlx backend only: tests/unit/backend/metal_optimizations_test.cpp": {
        "mlxs_blit_copies_total",
        "mlxs_blit_seconds_total",
        "mlxs_blit_uploaded_bytes_total",
        "mlxs_blit_waits_total",
        "mlxs_blit_wait_seconds_total",
        "mlxs_blit_overlap_ratio",
    },
    "devices that work on their own": {"mlxs_step_seconds_total{part=wait}"},
    "held only while a step runs": {"mlxs_pool_heaps{state=used}", "mlxs_ring_places{state=used}"},
    "text and sending a step behind, a step larger than a heap: tests/unit/backend/metal_optimizations_test.cpp": {
        "mlxs_ring_waits_total",
        "mlxs_ring_timeouts_total",
        "mlxs_pool_exhausted_total",
        "mlxs_pool_fallbacks_total",
    },
    "a disk that fails: tests/unit/kv/page_store_test.cpp": {"mlxs_prefix_cache_disk_failed_writes_total"},
    "a log that blocks: tests/unit/telemetry/bounded_queue_test.cpp": {"mlxs_requests_unreported_total"},
}
PATIENCE_S = float(os.environ.get("MLXS_TEST_PATIENCE", "300"))


class Load:
    """A server, and every sample of its metrics that was not zero at some time: `name`, `name{label=value}`."""

    def __init__(self, tmp_path, model, *flags):
        self.server = ServeProcess(model, *flags, cache=tmp_path)
        self.url, self.moved, self.threads, self.ending = self.server.url, set(), [], threading.Event()

    def scrape(self) -> None:
        for family in text_string_to_metric_families(requests.get(f"{self.url}/metrics", timeout=60).text):
            for sample in family.samples:
                if sample.value == 0 or sample.name.endswith(("_bucket", "_count")):
                    continue
                name = sample.name.removesuffix("_sum") if family.type == "histogram" else sample.name
                self.moved |= {name, *(f"{name}{{{label}={word}}}" for label, word in sample.labels.items())}

    def until(self, wanted: set, act=lambda: None) -> None:
        end = time.monotonic() + PATIENCE_S
        while True:
            act()
            self.scrape()
            if wanted <= self.moved:
                return
            assert time.monotonic() < end, f"never moved: {sorted(wanted - self.moved)}"

    def ask(self, prompt="a", path="/v1/completions", **fields) -> requests.Response:
        body = {"prompt": prompt, "max_tokens": 8, "ignore_eos": True, "user": "someone", **fields}
        answer = requests.post(self.url + path, json=body, timeout=PATIENCE_S)
        assert answer.status_code in (200, 429, 500), answer.text
        return answer

    def at_once(self, *bodies) -> None:
        threads = [threading.Thread(target=self.ask, kwargs=body) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stream(self, prompt="a", **fields) -> threading.Event:
        """Reads a stream on a thread, until its end or the load's; says when it has begun."""
        begun = threading.Event()
        body = {"prompt": prompt, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True, **fields}

        def read():
            ask = requests.post
            with (
                contextlib.suppress(requests.RequestException),
                ask(f"{self.url}/v1/completions", json=body, stream=True, timeout=PATIENCE_S) as answer,
            ):
                for _ in answer.iter_lines():
                    begun.set()
                    if self.ending.is_set():
                        return

        self.threads.append(threading.Thread(target=read))
        self.threads[-1].start()
        return begun

    def unread(self, tokens: int) -> socket.socket:
        """A stream that nobody reads."""
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", urlsplit(self.url).port))
        body = json.dumps({"prompt": "a", "max_tokens": tokens, "ignore_eos": True, "stream": True}).encode()
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return slow

    def end(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()
        self.server.close()


@pytest.fixture
def load(tmp_path):
    started = []

    def start(model, *flags, config=None):
        if config is not None:
            (tmp_path / "runtime.yaml").write_text(config)
            flags = (*flags, "--config", str(tmp_path / "runtime.yaml"))
        started.append(Load(tmp_path, model, *flags))
        return started[-1]

    yield start
    for one in started:
        one.end()


def words(metric: str, label: str, *values: str) -> set:
    return {f"{metric}{{{label}={value}}}" for value in values}


def queue(most: int) -> str:
    return f"scheduling: {{priority_scheduler: {{max_queue_depth: {most}}}}}\n"


REQUESTS = {
    *(f"vllm:{name}_total" for name in ("prompt_tokens", "generation_tokens", "request_success")),
    *(f"vllm:{name}_seconds" for name in ("time_to_first_token", "inter_token_latency", "time_per_output_token")),
    *(f"vllm:request_{part}_time_seconds" for part in ("prefill", "decode", "inference")),
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    *(f"vllm:request_{what}" for what in ("prompt_tokens", "generation_tokens", "params_max_tokens", "params_n")),
    "vllm:request_max_num_generation_tokens",
    "vllm:request_prefill_kv_computed_tokens",
    "vllm:iteration_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:cache_config_info",
    *words("vllm:request_success_total", "finished_reason", "length", "stop"),
    *words("vllm:prompt_tokens_by_source_total", "source", "local_compute", "local_cache_hit"),
    "vllm:prompt_tokens_by_source_total",
    "vllm:prompt_tokens_cached_total",
    "vllm:prefix_cache_hits_total",
    *(f"mlxs_{name}" for name in ("steps_total", "step_duration_seconds", "step_seconds_total", "step_fixed_seconds")),
    *words("mlxs_step_seconds_total", "part", "plan", "mask", "launch", "sample", "publish"),
    *(f"mlxs_step_{name}" for name in ("token_seconds", "ring_depth", "token_budget")),
    *(f"mlxs_{name}" for name in ("requests_admitted_total", "concurrency_limit", "tokenize_duration_seconds")),
    *(f"mlxs_{name}" for name in ("mask_seconds_total", "request_part_seconds_total")),
    *words("mlxs_request_part_seconds_total", "part", "prepare", "tokenize", "grammar", "queue", "prefill", "decode"),
    *(f"mlxs_tenant_{name}_total" for name in ("requests", "tokens", "queue_seconds", "request_seconds")),
    *words("mlxs_tenant_tokens_total", "kind", "prompt", "cached", "generated"),
    "mlxs_tenant_time_to_first_token_seconds",
    *(f"mlxs_{name}" for name in ("loaded_models", "model_load_seconds", "model_weight_bytes", "model_kv_bytes")),
    *words("mlxs_kv_pages", "state", "cached", "free"),
    "mlxs_kv_pages",
    *(f"mlxs_prefix_cache_{name}" for name in ("entries", "misses_total")),
    *words("mlxs_prefix_cache_misses_total", "reason", "new", "diverged"),
    *(f"mlxs_kv_{name}" for name in ("oldest_cached_page_age_seconds", "page_reuse_age_seconds", "branched_pages_total")),
    *(f"mlxs_throughput_{what}_per_second" for what in ("tokens", "requests")),
    *words("mlxs_throughput_tokens_per_second", "window", "5s", "30s", "60s"),
    *words("mlxs_throughput_requests_per_second", "window", "5s", "30s", "60s"),
    *(f"mlxs_http_{name}" for name in ("responses_total", "sent_bytes_total", "connections")),
    "mlxs_http_responses_total{code=200}",
    *(f"process_{name}" for name in ("start_time_seconds", "cpu_seconds_total", "resident_memory_bytes", "open_fds")),
    *(f"process_{name}" for name in ("virtual_memory_bytes", "max_fds")),
}


@needs_model
def test_requests_of_a_model(load):
    server = load(MODEL)

    def act():
        begin = "All of it begins alike. " * 12
        for prompt in (begin + "Then a river. " * 8, begin + "Then a river. " * 8, begin + "Or a lake! " * 8):
            server.ask(prompt)
        server.ask(begin + "Twice", n=2, temperature=1)
        server.ask("JSON:", response_format={"type": "json_object"}, ignore_eos=False, max_tokens=30)
        server.ask("One", stop=["e", "a", "o", " "], max_tokens=50)

    server.until(REQUESTS, act)


PLACES = {
    *(f"vllm:num_requests_{name}" for name in ("running", "waiting", "waiting_by_reason")),
    *words("vllm:num_requests_waiting_by_reason", "reason", "capacity"),
    "vllm:request_queue_time_seconds",
    *words("vllm:request_success_total", "finished_reason", "abort", "error"),
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "mlxs_blocked_tokens",
    *words("mlxs_blocked_tokens", "cause", "slots", "budget"),
    *words("mlxs_kv_pages", "state", "held"),
    *words("mlxs_request_part_seconds_total", "part", "budget"),
    "mlxs_tenant_errors_total",
    *(f"mlxs_requests_{name}_total" for name in ("refused", "displaced")),
    *(f"mlxs_slo_{name}_total" for name in ("requests", "met", "missed")),
    *words("mlxs_slo_missed_total", "target", "tpot"),
    "mlxs_goodput_tokens_total",
    "mlxs_slo_refused_total",
}


@needs_program
def test_places(load):
    server = load("mock:tokens=1000000,delay=5", "--max-running", "3", config=queue(4))
    for words_of_it in (20, 200, 2000):  # it learns what steps take
        server.ask("measure " * words_of_it)
    server.stream("first").wait()
    turn = 0

    def act():
        nonlocal turn
        turn += 1
        server.stream(f"{turn} " + "long " * 2000, max_tokens=1)
        for low in range(6):
            server.stream(f"{turn} {low} " + "long " * 2000, max_tokens=1, priority="low")
        for _ in range(8):  # while they wait
            server.scrape()
        server.ask("one", priority="high", max_tokens=2)
        server.ask("now", slo_ttft_ms=1)
        server.ask("met", slo_ttft_ms=3.6e6, slo_tpot_ms=3.6e6, priority="high", max_tokens=2)
        server.ask("slow", slo_tpot_ms=1, priority="high", max_tokens=2)
        with requests.post(
            f"{server.url}/v1/completions", json={"prompt": "gone", "stream": True}, stream=True, timeout=60
        ) as gone:
            next(gone.iter_lines())

    server.until(PLACES, act)


AT_RISK = {"mlxs_slo_promoted_total"}


@needs_program
def test_a_target_at_risk(load):
    server = load("mock:tokens=1000000,delay=5", "--max-running", "2")
    for _ in range(8):  # it learns that requests end soon, and takes the next at their word
        server.ask(max_tokens=1)
    for name in ("first", "second"):  # which do not
        server.stream(name).wait()
    target_ms = 1000

    def act():  # half the target passes in the queue
        nonlocal target_ms
        target_ms *= 2
        server.ask("soon", slo_ttft_ms=target_ms, priority="low", max_tokens=1)

    server.until(AT_RISK, act)


LATE = words("mlxs_slo_missed_total", "target", "ttft")


@needs_program
def test_a_first_request_that_is_late(load):
    def act():  # nobody knows yet that a step takes 400 ms: it is taken
        server = load("mock:delay=400")
        server.ask(slo_ttft_ms=200, max_tokens=1)
        server.scrape()
        seen.moved |= server.moved

    seen = load("mock")
    seen.until(LATE, act)


PAGES = {
    "vllm:num_preemptions_total",
    "vllm:request_num_preemptions",
    "vllm:cpu_cache_usage_perc",
    *words("mlxs_blocked_tokens", "cause", "pages"),
    *words("mlxs_request_part_seconds_total", "part", "preempted"),
    *(f"mlxs_swap_{name}" for name in ("preemptions_total", "pages_total", "slots", "page_seconds")),
    *words("mlxs_swap_slots", "state", "used", "free"),
    *(f"mlxs_prefix_cache_disk_{name}" for name in ("saved_pages_total", "restored_pages_total", "bytes")),
}
FEW_PAGES = ["--kv-cache-bytes", "1MiB", "--max-running", "6"]  # 128 pages; each of the requests below comes to 31


def alike(begin: str) -> list[dict]:
    return [{"prompt": f"{i} " + begin * 24, "max_tokens": 60} for i in range(6)]


@needs_program
def test_pages_that_run_out(load, tmp_path):
    server = load(
        write_tiny_llama(tmp_path / "tiny"), *FEW_PAGES, "--kv-swap-bytes", "64MiB", "--prefix-cache-dir", str(tmp_path / "pages")
    )

    def act():
        for begin in ("Rivers and lakes. ", "Hills and valleys. "):
            running = [server.stream(**body) for body in alike(begin)]
            while not all(begun.wait(0.01) for begun in running):
                server.scrape()

    server.until(PAGES, act)


AGAIN = {
    *words("mlxs_request_part_seconds_total", "part", "recompute"),
    "mlxs_requests_overtaking_total",
    "mlxs_prefix_cache_evicted_pages_total",
    *words("mlxs_prefix_cache_misses_total", "reason", "evicted"),
    "mlxs_kv_page_evict_age_seconds",
}


PASSED = {"mlxs_kv_passed_pages_total"}


@needs_program
def test_pages_that_a_window_leaves_behind(load, tmp_path):
    server = load(write_tiny_llama(tmp_path / "tiny", sliding_window=32))
    server.until(PASSED, lambda: server.ask("word " * 20))


OWN_PAGES = {
    "mlxs_kv_window_pages",
    *words("mlxs_kv_window_pages", "state", "held", "cached", "free"),
    "mlxs_kv_window_evicted_pages_total",
    *words("mlxs_prefix_cache_misses_total", "reason", "window"),
}


@needs_program
def test_pages_of_layers_with_a_window(load, tmp_path):
    layers = ["sliding_attention", "full_attention"]
    server = load(write_tiny_llama(tmp_path / "tiny", sliding_window=32, layer_types=layers), *FEW_PAGES)

    def act():
        server.scrape()
        begun = server.stream("word " * 400, max_tokens=60)  # 125 pages of one layer; the other has 69 in all
        while not begun.wait(0.01):
            server.scrape()
        server.ask("word " * 60)  # its pages are there, but not what their window was

    server.until(OWN_PAGES, act)


@needs_program
def test_pages_that_are_computed_again(load, tmp_path):
    server = load(write_tiny_llama(tmp_path / "tiny"), *FEW_PAGES)

    def act():
        rain = {"prompt": "Rain " * 340, "max_tokens": 2}
        server.at_once(*alike("Rivers and lakes. "), rain, {"prompt": "Short", "max_tokens": 2})
        server.at_once(*alike("Hills and valleys. "), rain, {"prompt": "Short", "max_tokens": 2})

    server.until(AGAIN, act)


CACHE = {
    "mlxs_prefix_cache_expired_pages_total",
    *words("mlxs_prefix_cache_misses_total", "reason", "expired"),
    *(f"mlxs_prefix_cache_{name}" for name in ("pinned_prompts", "pinned_pages", "pin_hits_total", "pins_total")),
    *words("mlxs_prefix_cache_pins_total", "event", "pinned", "expired", "displaced", "refused"),
}


@needs_program
def test_prompts_in_the_cache(load):
    config = "prompt_cache: {ttl_ms: 1000, pinning: {ttl_ms: 1000, max_share: 0.01}}\nengine: {kv_cache_bytes: 1MiB}\n"
    server = load("mock:tokens=8", config=config)  # 16,384 pages of 64 bytes, 163 of them for pinned ones

    def act():
        for prompt in ("a" * 1605, "a" * 1605, "b" * 1605, "c" * 4000):
            server.ask(prompt, prompt_cache_retention="24h")
        server.ask("not pinned " * 20)
        server.scrape()  # some are pinned
        time.sleep(1.1)  # longer than both may be unused
        server.ask("not pinned " * 20)

    server.until(CACHE, act)


CLIENTS = {
    "mlxs_requests_paused",
    *words("mlxs_blocked_tokens", "cause", "paused"),
    *words("mlxs_request_part_seconds_total", "part", "paused"),
    "mlxs_streams",
    "mlxs_websockets",
    "mlxs_socket_wait_seconds_total",
    "mlxs_http_slow_readers_total",
    "mlxs_clients_gone_total",
}


@needs_program
def test_clients(load):
    config = "server: {send_buffer_bytes: 4KiB, stream_buffer_bytes: 4KiB, slow_reader: cancel, slow_reader_timeout_ms: 1000}\n"
    server = load("mock:tokens=1000000,delay=1", config=config)
    port = urlsplit(server.url).port
    server.stream("read").wait()
    open_for_long = []

    def act():
        open_for_long.append(server.unread(900_000))
        with socket.create_connection(("127.0.0.1", port)) as gone:
            body = b'{"prompt": "a", "max_tokens": 900000}'
            gone.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        ask = {"type": "request", "id": "a", "path": "/v1/completions", "body": {"prompt": "a", "max_tokens": 2}}
        with connect(server.url.replace("http", "ws", 1) + "/v1/ws") as websocket:
            websocket.send(json.dumps(ask))
            websocket.recv(timeout=PATIENCE_S)
            server.scrape()

    server.until(CLIENTS, act)
    for slow in open_for_long:
        slow.close()


RATES = {"mlxs_http_rate_limited_total", "mlxs_http_responses_total{code=429}"}


@needs_program
def test_rates(load):
    server = load("mock:tokens=2", "--requests-per-minute", "6")
    server.until(RATES, server.ask)


AHEAD = {"mlxs_steps_ahead_total", "mlxs_step_void_rows_total", "mlxs_step_hidden_seconds_total"}


@needs_program
def test_steps_ahead(load):
    server = load("mock:tokens=3,delay=1")
    server.until(AHEAD, lambda: server.ask(ignore_eos=False))


WINDOW = {
    *(f"mlxs_window_{name}" for name in ("seconds", "batch_size", "queue_depth_smoothed")),
    *(f"mlxs_window_{name}_total" for name in ("batches", "degradations", "adjustments", "transitions")),
    *words("mlxs_window_batches_total", "path", "fast", "window"),
}
HELD = words("mlxs_blocked_tokens", "cause", "window")


@needs_program
def test_the_window(load):
    config = """gpu_scheduler:
  enabled: true
  max_batch_size: 8
  p99_threshold_ms: 50
  adaptive_window: {high_load_window_ms: 5, hysteresis_count: 1}
  auto_tune: {enabled: true, interval: 5}
"""
    server = load("mock:tokens=1000000,delay=120", "--max-running", "16", config=config)

    def act():
        server.ask(max_tokens=2)  # alone: at once
        for _ in range(12):
            server.stream("many", max_tokens=2)
        server.stream("one more", max_tokens=30)

    server.until(WINDOW, act)


@needs_program
def test_requests_that_a_window_holds(load):
    config = """gpu_scheduler:
  enabled: true
  batch_window_ms: 40
  max_batch_size: 16
  adaptive_window: {enabled: false}
  fast_path: {enabled: false}
"""
    server = load("mock:tokens=1000000,delay=4", config=config)
    server.stream("steps").wait()

    def ask_on():  # whoever comes is held for some steps
        while not server.ending.is_set():
            server.ask(max_tokens=1)

    server.threads += [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in server.threads[1:]:
        thread.start()
    server.until(HELD)


@needs_program
def test_steps_that_fail(load):
    server = load("mock:fail=5")
    server.until({"mlxs_failed_steps_total"}, server.ask)


TOLD = {
    "mlxs_otlp_traces_total",
    *words("mlxs_otlp_traces_total", "outcome", "sent", "dropped"),
    *(f"mlxs_{name}_total" for name in ("otlp_metric_exports", "otlp_failures", "flight_dumps", "stalls")),
}


@needs_program
def test_what_is_told(load, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # spans: one request
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    sink = OtlpSink()
    try:
        flags = ["--otlp-endpoint", sink.url, "--otlp-metrics-interval-ms", "100", "--trace-sample", "1"]
        server = load("mock:tokens=64,delay=50", *flags, "--stall-timeout", "0.01", "--flight-dir", str(tmp_path))
        server.server.signal(signal.SIGUSR1)
        server.until({"mlxs_otlp_traces_total{outcome=sent}", "mlxs_otlp_metric_exports_total"}, server.ask)
        sink.answers = [503] * 1000
        server.until(TOLD, lambda: server.at_once(*({"max_tokens": 1} for _ in range(8))))
    finally:
        sink.close()


DEVICE = {
    *(f"mlxs_pool_{name}" for name in ("acquired_total", "released_total", "heaps")),
    *words("mlxs_pool_heaps", "state", "free"),
    *(f"mlxs_ring_{name}" for name in ("acquired_total", "places")),
    *words("mlxs_ring_places", "state", "free"),
}


@needs_model
def test_the_devices_memory_and_steps(load):
    config = """metal_optimizations:
  enabled: true
  memory_pool: {enabled: true, heap_size_mb: 64, num_heaps: 2}
  command_buffer_ring: {enabled: true}
"""
    server = load(MODEL, config=config)
    server.until(DEVICE, server.ask)


@needs_program
def test_no_metric_is_missing_here(tmp_path):
    listed = set()
    for row in run("metrics", cache=tmp_path).out.splitlines()[2:]:
        name, _, labels, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        name = name.strip("`")
        listed.add(name)
        for label in labels.split(";"):
            key, _, values = label.partition(":")
            if values and not name.endswith("_info"):
                listed |= words(name, key.strip().strip("`"), *(value.strip() for value in values.split(",")))
    elsewhere = set().union(*ELSEWHERE.values())
    moved = set().union(
        REQUESTS,
        PLACES,
        AT_RISK,
        LATE,
        PAGES,
        PASSED,
        OWN_PAGES,
        AGAIN,
        CACHE,
        CLIENTS,
        RATES,
        AHEAD,
        WINDOW,
        HELD,
        TOLD,
        DEVICE,
        elsewhere,
    )
    moved.add("mlxs_failed_steps_total")
    moved -= {entry for entry in moved if re.search(r"{code=", entry)}  # as many as there are statuses
    listed -= {entry for entry in listed if re.search(r"{code=", entry)}
    assert {entry for entry in listed if not {entry, entry.partition("{")[0]} & elsewhere} - moved == set()
    assert {entry.partition("{")[0] for entry in moved} - listed == set(), "no longer in the registry"
