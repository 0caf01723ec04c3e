"""Every panel of every dashboard has data in a real Prometheus that scraped a server under load: `make test-protocol`."""

import json
import math
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
from program import MODEL, ServeProcess

PROMETHEUS = os.environ["MLXS_PROMETHEUS"]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: mlx-serving
    static_configs: [{{targets: ["{target}"]}}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def stack(tmp_path):
    # Few pages, so that some are taken from the cache.
    server = ServeProcess(MODEL, "--kv-cache-bytes", "24MiB", cache=tmp_path)
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(rules=DEPLOY / "prometheus" / "alerts.yml", target=server.url.split("//")[1]))
    prometheus = subprocess.Popen(
        [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
        stderr=subprocess.DEVNULL,
    )
    yield server.url, f"http://127.0.0.1:{port}"
    prometheus.terminate()
    prometheus.wait(60)
    server.close()


def test_grafana_knows_every_field():
    files = [str(path) for path in sorted((DEPLOY / "grafana").glob("*.json"))]
    done = subprocess.run([os.environ["MLXS_DASHBOARDS"], *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(files) == 5


def load(url: str, seconds: float) -> None:
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            body = {
                "messages": [{"role": "user", "content": f"{number} {turn} " + "Tell me of rivers. " * 20}],
                "max_tokens": 12,
                "ignore_eos": True,
                "user": f"tenant-{number % 2}",
                "stream": turn % 2 == 0,
                "slo_ttft_ms": 60000,
                "slo_tpot_ms": 60000,
            }
            requests.post(f"{url}/v1/chat/completions", json=body, timeout=120)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def query(prometheus: str, expr: str) -> list:
    answer = requests.get(f"{prometheus}/api/v1/query", params={"query": expr}, timeout=60).json()
    assert answer["status"] == "success", (expr, answer)
    return answer["data"]["result"]


def vllm_dashboard(model: str) -> list[str]:
    """Every expression of the Grafana dashboard among vLLM's examples, as an operator who comes from there has it."""
    of = f'{{model_name="{model}"}}'
    exprs = [
        f"vllm:{name}{of}"
        for name in ("num_requests_running", "num_requests_waiting", "gpu_cache_usage_perc", "kv_cache_usage_perc")
    ]
    exprs.append(f"vllm:cpu_cache_usage_perc{of}")  # of an older version
    for name in ("e2e_request_latency", "time_per_output_token", "inter_token_latency", "time_to_first_token"):
        series = f"vllm:{name}_seconds"
        exprs += [f"histogram_quantile({q}, sum by(le) (rate({series}_bucket{of}[1m])))" for q in (0.99, 0.95, 0.9, 0.5)]
        exprs.append(f"rate({series}_sum{of}[1m])\n/\nrate({series}_count{of}[1m])")
    exprs += [f"rate(vllm:{name}_tokens_total{of}[1m])" for name in ("prompt", "generation")]
    exprs += [f"sum by(le) (increase(vllm:request_{name}_tokens_bucket{of}[1m]))" for name in ("prompt", "generation")]
    exprs.append(f"sum by(finished_reason) (increase(vllm:request_success_total{of}[1m]))")
    exprs += [f"rate(vllm:request_{phase}_time_seconds_sum{of}[1m])" for phase in ("queue", "prefill", "decode")]
    exprs.append(f"rate(vllm:request_max_num_generation_tokens_sum{of}[1m])")
    return exprs


def test_every_panel_has_data(stack):
    url, prometheus = stack
    for _ in range(600):
        try:
            if requests.get(f"{prometheus}/-/ready", timeout=5).ok:
                break
        except requests.ConnectionError:
            time.sleep(0.1)
    load(url, 20)
    time.sleep(3)  # two more scrapes
    empty = []
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*").replace("$tenant", ".*")
                if not query(prometheus, expr):
                    empty.append((path.stem, panel["title"], expr))
    (model,) = query(prometheus, "count by (model_name) (vllm:num_requests_running)")
    for expr in vllm_dashboard(model["metric"]["model_name"]):
        samples = [float(sample["value"][1]) for sample in query(prometheus, expr)]
        if not samples or any(math.isnan(sample) for sample in samples):
            empty.append(("vLLM", expr, samples))
    assert empty == []
    rules = requests.get(f"{prometheus}/api/v1/rules", timeout=60).json()["data"]["groups"][0]["rules"]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    assert firing == [], firing
