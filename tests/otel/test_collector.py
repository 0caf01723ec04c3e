"""OTLP, as a real OpenTelemetry collector understands it: `make test-protocol`."""

import json
import os
import socket
import subprocess
import time

import pytest
import requests
from otlp_sink import attributes
from program import MODEL, ServeProcess

COLLECTOR = os.environ["MLXS_OTELCOL"]
CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
exporters:
  file:
    path: {path}
    flush_interval: 100ms
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def collector(tmp_path):
    port, path = free_port(), tmp_path / "out.json"
    (tmp_path / "config.yaml").write_text(CONFIG.format(port=port, path=path))
    log = open(tmp_path / "collector.log", "w+")  # noqa: SIM115 - closed below
    process = subprocess.Popen([COLLECTOR, "--config", str(tmp_path / "config.yaml")], stderr=log, stdout=log)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", path
    process.terminate()
    process.wait(60)
    log.seek(0)
    text = log.read()
    log.close()
    assert "error" not in text.lower(), text


def heard(path):
    """What the collector wrote, as its own JSON: (spans with their resource, metrics by name)."""
    spans, metrics = [], {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        for resource in entry.get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                assert scope["scope"]["name"] == "mlx-serving"
                spans += [{**span, "resource": attributes(resource["resource"])} for span in scope["spans"]]
        for resource in entry.get("resourceMetrics", []):
            for scope in resource["scopeMetrics"]:
                metrics |= {metric["name"]: metric for metric in scope["metrics"]}
    return spans, metrics


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def wait_for(path, condition):
    for _ in range(1200):
        spans, metrics = heard(path)
        if condition([span for span in spans if span["kind"] == 2], metrics):
            return spans, metrics
        time.sleep(0.1)
    raise AssertionError(f"the collector never wrote it: {path.read_text()[-2000:]}")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_collector_takes_traces_and_metrics(collector, tmp_path, compression):
    url, path = collector
    server = ServeProcess(MODEL, "--otlp-endpoint", url, "--trace-sample", "1", "--otlp-compression", compression, cache=tmp_path)
    try:
        for i in range(3):
            body = {"prompt": "Rivers " * 40, "max_tokens": 5, "ignore_eos": True, "stream": i == 1, "n": 1 + i // 2}
            answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=120)
            assert answer.ok
        server.signal(15)  # sends what it has
        assert server.wait() == 0
        assert "takes no" not in server.errors()
    finally:
        server.close()
    spans, metrics = wait_for(path, lambda roots, metrics: metrics and len(roots) == 3)
    roots = [span for span in spans if span["kind"] == 2]
    ids = {span["spanId"]: span for span in spans}
    for span in spans:
        if span["kind"] == 2:
            continue
        parent = ids[span["parentSpanId"]]
        assert parent["traceId"] == span["traceId"]
        assert int(parent["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
        assert int(span["endTimeUnixNano"]) <= int(parent["endTimeUnixNano"])
    for root in roots:
        below = {span["name"] for span in spans if span["traceId"] == root["traceId"]}
        assert below >= {"admit", "tokenize", "queue", "prefill", "prefill chunk", "decode", "stream"}
        said = attributes(root)
        assert (said["gen_ai.operation.name"], said["gen_ai.provider.name"]) == ("text_completion", "mlx-serving")
        assert said["gen_ai.request.max_tokens"] == 5
        assert set(said["gen_ai.response.finish_reasons"]) == {"length"}
        assert said["gen_ai.usage.input_tokens"] > 40
    assert sum(attributes(root)["gen_ai.usage.output_tokens"] for root in roots) == 20
    assert roots[0]["resource"]["service.name"] == "mlx-serving"
    (point,) = metrics["vllm:generation_tokens_total"]["sum"]["dataPoints"]
    assert point["asDouble"] == 20
    assert {"gen_ai.server.request.duration", "gen_ai.server.time_to_first_token"} <= set(metrics)


def test_of_what_is_not_sampled_failures_and_missed_targets_come(collector, tmp_path):
    """And what a caller decided holds."""
    url, path = collector
    server = ServeProcess(MODEL, "--otlp-endpoint", url, "--trace-sample", "0", cache=tmp_path)

    def post(request_id: str, headers=None, **fields):
        body = {"prompt": "Rivers", "max_tokens": 20, "ignore_eos": True, **fields}
        headers = {"x-request-id": request_id, **(headers or {})}
        return requests.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=120)

    try:
        assert post("plain").ok
        assert post("bad", temperature=99).status_code == 400
        assert post("late", slo_tpot_ms=1).ok
        assert post("unsampled", {"traceparent": f"00-{TRACE}-{PARENT}-00"}).ok
        traced = post("traced", {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"})
        assert traced.headers["traceparent"].startswith(f"00-{TRACE}-")
        server.signal(15)
        assert server.wait() == 0
    finally:
        server.close()
    spans, _ = wait_for(path, lambda roots, metrics: metrics and len(roots) == 3)
    roots = {attributes(span)["mlxs.request_id"]: span for span in spans if span["kind"] == 2}
    assert set(roots) == {"bad", "late", "traced"}
    assert attributes(roots["bad"])["error.type"] == "400"
    assert attributes(roots["late"])["mlxs.target_missed"] is True
    root = roots["traced"]
    assert (root["traceId"], root["parentSpanId"], root["traceState"]) == (TRACE, PARENT, "vendor=1")
    assert root["spanId"] == traced.headers["traceparent"].split("-")[2]
