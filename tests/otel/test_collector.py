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


def test_a_collector_takes_traces_and_metrics(collector, tmp_path):
    url, path = collector
    server = ServeProcess(MODEL, "--otlp-endpoint", url, "--trace-sample", "1", cache=tmp_path)
    try:
        for i in range(3):
            body = {"prompt": "Rivers " * 40, "max_tokens": 5, "ignore_eos": True, "stream": i == 1, "n": 1 + i // 2}
            answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=120)
            assert answer.ok
        server.signal(15)  # sends what it has
        assert server.wait() == 0
    finally:
        server.close()
    for _ in range(600):
        spans, metrics = heard(path)
        if metrics and len([span for span in spans if span["kind"] == 2]) == 3:
            break
        time.sleep(0.1)
    roots = [span for span in spans if span["kind"] == 2]
    assert len(roots) == 3
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
    assert sum(attributes(root)["gen_ai.usage.output_tokens"] for root in roots) == 20
    assert roots[0]["resource"]["service.name"] == "mlx-serving"
    (point,) = metrics["vllm:generation_tokens_total"]["sum"]["dataPoints"]
    assert point["asDouble"] == 20
    assert {"gen_ai.server.request.duration", "gen_ai.server.time_to_first_token"} <= set(metrics)
