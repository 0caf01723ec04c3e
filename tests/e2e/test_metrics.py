"""GET /metrics: vLLM's names and types, a valid exposition, and numbers that follow what was done."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Api
from program import MODEL, ServeProcess, needs_model, needs_program, run
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
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
    "vllm:request_inference_time_seconds": "histogram",
    "vllm:request_params_max_tokens": "histogram",
    "vllm:cache_config_info": "gauge",
    "mlxs_step_duration_seconds": "histogram",
    "mlxs_blocked_tokens": "gauge",
    "mlxs_kv_page_reuse_age_seconds": "histogram",
    "mlxs_request_part_seconds": "counter",
    "mlxs_model_load_seconds": "gauge",
}

OF_THE_SERVER = {
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
    own = ("mlxs_http_", "process_")  # the question itself counts there
    samples = [s for f in families.values() if f.type == "counter" for s in f.samples if not s.name.startswith(own)]
    counted = [sample for sample in samples if sample.name.endswith("_total")]
    assert len(counted) >= 8
    assert [sample for sample in counted if sample.value != 0] == []


def test_names_types_and_labels(api):
    api.chat(max_tokens=3)
    families = scrape(api)
    for name, kind in EXPECTED.items():
        assert families[name].type == kind, name
        assert families[name].samples
        assert all(sample.labels["model_name"] == api.model for sample in families[name].samples)
    for name, kind in OF_THE_SERVER.items():
        assert families[name].type == kind, name
        assert families[name].samples


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
    for part in ("plan", "launch", "sample", "publish"):
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


ROOT = Path(__file__).resolve().parents[2]


def test_a_request_leaves_its_parts_and_its_tenant(api):
    before = scrape(api)
    answer = api.chat("Count to nine.", max_tokens=9, ignore_eos=True, user="metrics-tenant")
    after = scrape(api)
    tenant = {"tenant": "metrics-tenant"}
    assert value(after, "mlxs_tenant_requests", "mlxs_tenant_requests_total", **tenant) == 1
    generated = value(after, "mlxs_tenant_tokens", "mlxs_tenant_tokens_total", kind="generated", **tenant)
    assert generated == answer["usage"]["completion_tokens"]

    def grown(family, sample="", **labels):
        return value(after, family, sample, **labels) - value(before, family, sample, **labels)

    parts = [sample.labels["part"] for sample in after["mlxs_request_part_seconds"].samples]
    told = {part: grown("mlxs_request_part_seconds", "mlxs_request_part_seconds_total", part=part) for part in parts}
    whole = grown("vllm:e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds_sum")
    assert sum(told.values()) == pytest.approx(whole, rel=0.01)
    assert told["decode"] > 0
    steps = [
        grown("mlxs_step_seconds", "mlxs_step_seconds_total", part=p)
        for p in ("plan", "mask", "launch", "sample", "wait", "publish")
    ]
    assert sum(steps) == pytest.approx(grown("mlxs_step_duration_seconds", "mlxs_step_duration_seconds_sum"), rel=0.01)
    info = after["vllm:cache_config_info"].samples[0].labels
    assert info["block_size"] == "16" and int(info["num_gpu_blocks"]) > 0


@needs_program
def test_the_page_of_metrics_is_the_programs_own(tmp_path):
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert run("metrics", cache=tmp_path).out in page, "run `make docs`"


@needs_program
def test_dashboards_and_alerts_name_only_metrics_that_exist(tmp_path):
    rows = run("metrics", cache=tmp_path).out.splitlines()[2:]
    kinds = {row.split("`")[1]: row.split(" | ")[1] for row in rows}
    names = set(kinds)
    for name, kind in kinds.items():
        if kind == "histogram":
            names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")}
    texts = [path.read_text() for path in (ROOT / "deploy" / "grafana").glob("*.json")]
    assert len(texts) == 5
    for text in [*texts, (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()]:
        used = set(re.findall(r"\b((?:vllm:|mlxs_|process_)\w+)", text))
        assert used and used - names == set()
    for text in texts:
        for panel in json.loads(text)["panels"]:
            assert panel["targets"]
    check = [sys.executable, str(ROOT / "scripts" / "dashboards.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0


def test_alerts_do_what_their_tests_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    folder = ROOT / "deploy" / "prometheus"
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
