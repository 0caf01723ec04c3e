"""GET /metrics: vLLM's names and types, a valid exposition, and numbers that follow what was done."""

import shutil
import subprocess

import pytest
from conftest import Api
from program import MODEL, ServeProcess, needs_model
from prometheus_client.parser import text_string_to_metric_families

EXPECTED = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:gpu_cache_usage_perc": "gauge",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:time_per_output_token_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:iteration_tokens_total": "histogram",
    "mlxs_kv_pages": "gauge",
    "mlxs_step_seconds": "counter",
    "mlxs_steps": "counter",
    "mlxs_slo_missed": "counter",
    "mlxs_http_connections": "gauge",
    "mlxs_http_rate_limited": "counter",
    "mlxs_http_slow_readers": "counter",
}


def scrape(api) -> dict:
    response = api.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def value(families: dict, family: str, sample: str = "", **labels) -> float:
    for candidate in families[family].samples:
        if candidate.name == (sample or family) and labels.items() <= candidate.labels.items():
            return candidate.value
    raise AssertionError(f"no sample {sample} {labels} in {families[family].samples}")


@needs_model
def test_starting_counts_nothing(tmp_path):
    process = ServeProcess(MODEL, cache=tmp_path)
    try:
        families = scrape(Api(process))
    finally:
        process.close()
    counted = [s for f in families.values() if f.type == "counter" for s in f.samples if s.name.endswith("_total")]
    assert len(counted) >= 8
    assert [sample for sample in counted if sample.value != 0] == []


def test_names_types_and_labels(api):
    api.chat(max_tokens=3)
    families = scrape(api)
    for name, kind in EXPECTED.items():
        assert families[name].type == kind, name
        assert families[name].samples
        assert all(sample.labels["model_name"] == api.model for sample in families[name].samples)


def test_numbers_follow_the_work(api):
    before = scrape(api)
    answers = [api.chat("Count to twenty.", max_tokens=12, ignore_eos=True) for _ in range(3)]
    after = scrape(api)

    def grown(family, sample="", **labels):
        return value(after, family, sample, **labels) - value(before, family, sample, **labels)

    generated = sum(answer["usage"]["completion_tokens"] for answer in answers)
    prompts = sum(answer["usage"]["prompt_tokens"] for answer in answers)
    assert generated == 36
    assert grown("vllm:generation_tokens", "vllm:generation_tokens_total") == generated
    assert grown("vllm:prompt_tokens", "vllm:prompt_tokens_total") == prompts
    assert grown("vllm:request_success", "vllm:request_success_total", finished_reason="length") == 3
    assert grown("vllm:time_to_first_token_seconds", "vllm:time_to_first_token_seconds_count") == 3
    assert grown("vllm:inter_token_latency_seconds", "vllm:inter_token_latency_seconds_count") == generated - 3
    assert grown("vllm:e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds_count") == 3
    assert grown("vllm:request_prompt_tokens", "vllm:request_prompt_tokens_sum") == prompts
    assert grown("vllm:request_generation_tokens", "vllm:request_generation_tokens_sum") == generated
    assert grown("vllm:iteration_tokens_total", "vllm:iteration_tokens_total_count") >= 12
    per_request = "vllm:request_time_per_output_token_seconds"
    assert grown(per_request, per_request + "_count") == 3
    assert grown("mlxs_steps", "mlxs_steps_total") >= 12
    for part in ("plan", "run", "publish"):
        assert grown("mlxs_step_seconds", "mlxs_step_seconds_total", part=part) > 0


def test_histograms_are_cumulative_and_end_at_infinity(api):
    for name, kind in EXPECTED.items():
        if kind != "histogram":
            continue
        samples = scrape(api)[name].samples
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name == name + "_bucket"]
        assert buckets == sorted(buckets)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert buckets[-1][0] == float("inf")
        assert buckets[-1][1] == next(s.value for s in samples if s.name == name + "_count")


def test_promtool_finds_nothing_but_vllms_own_names(api):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=api.get("/metrics").text, capture_output=True, text=True, check=False
    )
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if line]
    # vLLM's names have a colon, and one histogram is called …_total; everything else must be in order.
    allowed = ("metric names should not contain ':'", 'non-counter metrics should not have "_total" suffix')
    assert [line for line in complaints if not line.endswith(allowed)] == []
