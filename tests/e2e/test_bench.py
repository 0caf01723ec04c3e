"""`bench`: each measurement runs, and its figures fit together. What they are is for `make bench`, not for a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from conftest import ENCODER
from other_server import OtherServer
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model


def bench(tmp_path, *arguments: str):
    result = run("bench", *arguments, "--json", cache=tmp_path)
    assert result.status == 0, result.err
    return result.json()


@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_decode(tmp_path, kv):
    flags = ["--streams", "2", "--prompt-tokens", "20", "--tokens", "8", "--kv-cache-dtype", kv]
    figures = bench(tmp_path, "throughput", "--model", MODEL, *flags)
    assert (figures["case"], figures["streams"], figures["context"]) == ("decode", 2, 20)
    assert figures["tokens_per_second"] > 0
    assert 0 <= figures["overhead_share"] < 1
    pages = figures["kv_bytes"] // {"bf16": 368640, "int8": 30 * 3 * 16 * (128 + 8)}[kv]
    assert 4 <= pages <= 8  # two streams of 30 tokens and the warm-up's two of 22, in pages of 16
    assert figures["resident_bytes"] > figures["weight_bytes"] + figures["kv_bytes"]


def test_prefill(tmp_path):
    figures = bench(tmp_path, "throughput", "--model", MODEL, "--case", "prefill", "--prompt-tokens", "40")
    assert figures["tokens_per_second"] == pytest.approx(40 / figures["seconds"])


def test_load_leaves_nothing_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    figures = bench(tmp_path, "load", "--model", MODEL)
    assert figures["first_seconds"] > 0
    assert figures["cached_seconds"] > 0
    assert list(scratch.iterdir()) == []


def test_limits(tmp_path):
    figures = bench(tmp_path, "limits", "--threads", "1")
    assert figures["threads"] == 1
    assert figures["read_gb_per_second"] > 0


def test_too_few_tokens_to_measure_is_an_error_that_says_so(tmp_path):
    result = run(
        "bench", "throughput", "--model", MODEL, "--streams", "16", "--prompt-tokens", "600", "--tokens", "4", cache=tmp_path
    )
    assert result.status == 1
    assert "ask for more tokens" in result.err


def test_kernels(tmp_path):
    figures = bench(tmp_path, "kernels", "--format", "Q4_0", "--rows", "1,5,40", "--seconds", "0.001")
    assert figures["format"] == "Q4_0"
    assert [k["rows"] for k in figures["kernels"]] == [1, 5, 40] * 5
    for kernel in figures["kernels"]:
        flop = 2 * kernel["outputs"] * kernel["inputs"] * kernel["rows"]
        assert kernel["gflop_per_second"] == pytest.approx(flop / kernel["microseconds"] / 1e3)


def test_kernels_of_an_unknown_format_lists_the_known_ones(tmp_path):
    result = run("bench", "kernels", "--format", "Q9_9", cache=tmp_path)
    assert result.status != 0
    assert "IQ4_NL" in result.err


def test_scheduler(tmp_path):
    result = bench(tmp_path, "scheduler", "--steps", "100", "--running", "64", "--waiting", "200")
    assert 55 < result["decode_rows"] <= 64, "nearly all places answer"
    assert 0 < result["step_us"]["p50"] <= result["step_us"]["p99"]
    assert result["preemptions"] == 0


def test_latency(tmp_path):
    figures = bench(tmp_path, "latency", "--model", MODEL, "--prompt-tokens", "8,40", "--repeats", "2", "--tokens", "4")
    assert [f["prompt_tokens"] for f in figures] == [8, 40]
    for f in figures:
        assert 0 < f["ttft_ms"]["p50"] <= f["ttft_ms"]["p95"]
        assert 0 < f["itl_ms"]["p50"] <= f["itl_ms"]["p95"] <= f["itl_ms"]["p99"]


@pytest.mark.parametrize("pace", [["--clients", "3"], ["--rate", "200"]])
def test_load_on_a_server(tmp_path, api, pace):
    before = api.stats()
    flags = ["--url", api.url, "--requests", "7", "--prefix-words", "40", "--max-tokens", "5", *pace]
    figures = bench(tmp_path, "serve", *flags)
    after = api.stats()
    assert (figures["requests"], figures["failed"]) == (7, 0)
    assert figures["generated_tokens"] == after["generated_tokens"] - before["generated_tokens"]
    assert figures["prompt_tokens"] > 7 * 100
    assert 0 < figures["ttft_ms"]["p50"] <= figures["e2e_ms"]["p99"]


def test_load_on_a_server_counts_refusals_by_their_reason(tmp_path, api):
    result = run("bench", "serve", "--url", api.url, "--model", "nope", "--requests", "2", "--json", cache=tmp_path)
    assert result.status == 1
    failures = result.json()["failures"]
    assert list(failures.values()) == [2]
    assert "nope" in next(iter(failures))


def test_answers_without_text_have_no_first_token(tmp_path):
    server = OtherServer(words=0, usage=True)
    try:
        flags = ["--url", server.url, "--requests", "3"]
        figures = bench(tmp_path, "serve", *flags)
        table = run("bench", "serve", *flags, cache=tmp_path)
        quick = run("bench", "quick", "--url", server.url, "-q", "2", "-v", cache=tmp_path)
    finally:
        server.close()
    assert (figures["failed"], figures["without_text"]) == (0, 3)
    assert (figures["ttft_ms"], figures["itl_ms"]) == (None, None)
    assert figures["e2e_ms"]["p50"] > 0
    assert "3 answers had no text" in table.out
    assert [line.split()[-4:] for line in table.out.splitlines() if line.startswith(("time to", "between"))] == [["-"] * 4] * 2
    assert "2 answers had no text" in quick.out and "none of them text" in quick.err


@pytest.mark.skipif(not ENCODER, reason="MLXS_TEST_ENCODER is not set: run through make test")
def test_a_model_that_generates_is_chosen(tmp_path):
    server = ServeProcess("mock:tokens=20,delay=0", ENCODER, cache=tmp_path)
    try:
        assert requests.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]["task"] == "embed"
        assert bench(tmp_path, "serve", "--url", server.url + "/v1/", "--requests", "2", "--prompt-words", "20")["failed"] == 0
        quick = run("bench", "quick", "--url", server.url, "-q", "2", cache=tmp_path)
    finally:
        server.close()
    assert quick.status == 0, quick.err


def test_load_on_nobody_says_what_to_do(tmp_path):
    result = run("bench", "serve", "--url", "http://127.0.0.1:1", cache=tmp_path)
    assert result.status == 1
    assert "start a server" in result.err


SYNTHETIC = {
    "model_type": "qwen3_moe",
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 512,
    "quantization": {"group_size": 64, "bits": 4},
}


def test_a_synthetic_model_reads_what_its_rows_choose(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SYNTHETIC))
    flags = ["--streams", "1,4", "--prompt-tokens", "24", "--steps", "4", "--rows", "16", "--backend", "cpu"]
    figures = bench(tmp_path, "synthetic", str(config), *flags)
    one, four = figures["decode"]
    assert (one["streams"], four["streams"]) == (1, 4)
    assert min(one["tokens_per_second"], figures["prefill_tokens_per_second"]) > 0
    # Two of 16 experts for one row, on average 2 · (1 + 7/8 + … ) for four; 24 + 4 + 2 tokens of bf16 KV each.
    experts, kv = 2 * 16 * 3 * 64 * 128 * 0.625e-9, 30 * 2 * 2 * 2 * 32 * 2e-9
    more = experts * (1 - (7 / 8) ** 4 - 1 / 8) + 3 * kv
    assert four["read_gigabytes"] - one["read_gigabytes"] == pytest.approx(more, rel=0.05)


def test_a_synthetic_model_of_an_unknown_quantization_is_refused(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SYNTHETIC | {"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32}}))
    result = run("bench", "synthetic", str(config), "--backend", "cpu", cache=tmp_path)
    assert result.status != 0
    assert "quantization" in result.err


def test_a_server_of_a_synthetic_file_answers_with_text(tmp_path):
    config, model = tmp_path / "config.json", tmp_path / "model.gguf"
    config.write_text(json.dumps(SYNTHETIC | {"max_position_embeddings": 2048, "rope_theta": 1e6}))
    script = Path(__file__).resolve().parents[2] / "bench" / "synthetic_gguf.py"
    subprocess.run([sys.executable, script, config, model], check=True)
    server = ServeProcess(str(model), "--threads", "1", "--backend", "cpu", cache=tmp_path)
    try:
        flags = ["--url", server.url, "--requests", "4", "--prompt-words", "5", "--max-tokens", "6"]
        figures = bench(tmp_path, "serve", *flags)
    finally:
        server.close()
    assert (figures["failed"], figures["without_text"]) == (0, 0)
    assert 0 < figures["ttft_ms"]["p50"] <= figures["e2e_ms"]["p99"]
