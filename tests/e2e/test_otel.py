"""OpenTelemetry: spans and metrics of the built program, as a receiver gets them."""

import re

import pytest
import requests
from conftest import Api
from otlp_sink import OtlpSink, attributes
from program import MODEL, ServeProcess, needs_model, run

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def sink():
    sink = OtlpSink()
    yield sink
    sink.close()


@pytest.fixture
def serve(tmp_path, sink, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    started = []

    def start(*arguments):
        started.append(ServeProcess(MODEL, "--otlp-endpoint", sink.url, *arguments, cache=tmp_path))
        return Api(started[-1])

    yield start
    for process in started:
        process.close()


def post(api, headers=None, **fields):
    body = {"model": api.model, "prompt": "Once upon a time", "max_tokens": 6, "ignore_eos": True, **fields}
    return requests.post(f"{api.url}/v1/completions", json=body, headers=headers or {}, timeout=120)


def by_name(spans):
    return {span["name"]: span for span in spans}


@needs_model
def test_a_trace_that_a_caller_began_goes_on(serve, sink, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "llm")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    api = serve("--trace-sample", "0", "--otlp-header", "api-key=secret", "--otlp-metrics-interval-ms", "100")
    answer = post(api, {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced"}, stream=True)
    assert answer.ok
    own = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", answer.headers["traceparent"])[1]
    sink.wait(lambda: sink.spans())
    spans = sink.spans()
    names = by_name(spans)
    parts = {"admit", "tokenize", "grammar", "queue", "prefill", "prefill chunk", "decode", "stream"}
    assert set(names) == {f"text_completion {api.model}"} | parts
    root = names[f"text_completion {api.model}"]
    assert (root["traceId"], root["spanId"], root["parentSpanId"], root["kind"]) == (TRACE, own, PARENT, 2)
    assert root["resource"]["service.name"] == "llm"
    assert root["resource"]["deployment.environment"] == "test"
    said = attributes(root)
    assert said["gen_ai.operation.name"] == "text_completion"
    assert said["gen_ai.request.model"] == api.model
    assert said["gen_ai.usage.output_tokens"] == 6
    assert said["gen_ai.request.max_tokens"] == 6
    assert said["gen_ai.response.finish_reasons"] == ["length"]
    assert said["http.response.status_code"] == 200
    assert said["mlxs.request_id"] == "traced"

    ids = {span["spanId"]: span for span in spans}
    assert len(ids) == len(spans)
    for span in spans:
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        if span is root:
            continue
        parent = ids[span["parentSpanId"]]
        assert int(parent["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
        assert int(span["endTimeUnixNano"]) <= int(parent["endTimeUnixNano"])
    assert all(headers["api-key"] == "secret" for headers in sink.headers)

    sink.wait(lambda: sink.bodies["/v1/metrics"] and count(sink, "vllm:e2e_request_latency_seconds") == 1)
    assert count(sink, "gen_ai.server.request.duration") == 1
    tokens = sink.metrics()["vllm:generation_tokens_total"]["sum"]
    assert tokens["isMonotonic"] and tokens["dataPoints"][0]["asDouble"] == 6
    usage = sink.metrics()["gen_ai.client.token.usage"]["histogram"]["dataPoints"]
    assert {attributes(point)["gen_ai.token.type"]: point["sum"] for point in usage}["output"] == 6


def count(sink, name):
    point = sink.metrics()[name]["histogram"]["dataPoints"][0]
    assert sum(map(int, point["bucketCounts"])) == int(point["count"])
    return int(point["count"])


@needs_model
def test_failures_and_missed_targets_are_sent_whatever_the_share(serve, sink):
    api = serve("--trace-sample", "0")
    assert post(api).ok  # not sampled
    unsampled = f"00-{TRACE}-{PARENT}-00"
    assert post(api, {"traceparent": unsampled}).ok  # nor is this
    missed = post(api, {"x-request-id": "late", "x-slo-tpot-ms": "1"}, max_tokens=30)
    assert missed.ok and missed.headers["traceparent"].endswith("-00")
    assert post(api, {"x-request-id": "bad"}, temperature=99).status_code == 400
    assert requests.get(f"{api.url}/v1/nothing", timeout=60).status_code == 404
    sink.wait(lambda: len([span for span in sink.spans() if span["kind"] == 2]) >= 2)
    api.process.signal(15)
    assert api.process.wait() == 0  # says goodbye: nothing is left
    roots = [attributes(span) for span in sink.spans() if span["kind"] == 2]
    assert sorted(root["mlxs.request_id"] for root in roots) == ["bad", "late"]
    assert [root.get("mlxs.target_missed") for root in roots if root["mlxs.request_id"] == "late"] == [True]


@needs_model
def test_a_receiver_that_is_down_is_asked_again_and_nobody_waits(serve, sink):
    sink.answers = [503, 503]
    api = serve("--trace-sample", "1")
    assert post(api, {"x-request-id": "again"}).ok
    sink.wait(lambda: sink.spans())
    assert sink.refused == 2
    assert attributes(sink.spans()[0])["mlxs.request_id"] == "again"
    assert "takes no traces: HTTP 503" in api.process.errors()
    sink.close()  # gone for good
    assert post(api).ok
    api.process.signal(15)
    assert api.process.wait() == 0


@needs_model
def test_bodies_are_compressed_where_that_is_asked_for(serve, sink, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none")
    api = serve("--trace-sample", "1", "--otlp-metrics-interval-ms", "100")
    assert post(api, {"x-request-id": "small"}).ok
    sink.wait(lambda: sink.spans() and sink.bodies["/v1/metrics"])
    encodings = {path: headers.get("Content-Encoding") for path, headers in zip(sink.paths, sink.headers, strict=True)}
    assert encodings == {"/v1/traces": "gzip", "/v1/metrics": None}
    assert attributes(sink.spans()[0])["mlxs.request_id"] == "small"


@needs_model
def test_a_tenth_of_the_traces_goes_out_by_default(serve, sink):
    """Which ones, their ids say, so that every service keeps the same."""
    api = serve()
    wanted = []
    for i in range(60):
        answer = post(api, {"x-request-id": f"r{i}"}, max_tokens=1)
        _, trace, _, flags = answer.headers["traceparent"].split("-")
        assert flags == ("01" if int(trace[18:], 16) < 0.1 * 2**56 else "00")
        wanted += [f"r{i}"] if flags == "01" else []
    api.process.signal(15)
    assert api.process.wait() == 0
    roots = [attributes(span)["mlxs.request_id"] for span in sink.spans() if span["kind"] == 2]
    assert sorted(roots) == sorted(wanted)


@needs_model
def test_the_oldest_traces_go_when_there_is_no_room(serve, sink, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")  # spans: two requests
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    sink.answers = [503] * 1000
    api = serve("--trace-sample", "1")
    assert post(api, {"x-request-id": "d0"}).ok
    sink.wait(lambda: sink.refused > 0)  # it is on its way, again and again
    for i in range(1, 6):
        assert post(api, {"x-request-id": f"d{i}"}).ok
    while "dropped" not in (text := api.get("/metrics").text) or not re.search(
        r'^mlxs_otlp_traces_total\{outcome="dropped"\} 3$', text, re.MULTILINE
    ):
        pass
    with sink.changed:
        sink.answers.clear()
    sink.wait(lambda: len([span for span in sink.spans() if span["kind"] == 2]) == 3)
    roots = [attributes(span)["mlxs.request_id"] for span in sink.spans() if span["kind"] == 2]
    assert roots == ["d0", "d4", "d5"]


@needs_model
def test_what_cannot_be_honoured_is_named(tmp_path, monkeypatch):
    for arguments, variables, words in [
        (["--otlp-endpoint", "collector:4318"], {}, "give a URL"),
        (["--otlp-endpoint", "http://c:4318"], {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL = 'grpc'"),
        ([], {"OTEL_TRACES_SAMPLER": "odd"}, "OTEL_TRACES_SAMPLER = 'odd'"),
    ]:  # fmt: skip
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            done = run("serve", MODEL, "--port", "0", *arguments, cache=tmp_path)
        assert done.status == 1
        assert words in done.err
