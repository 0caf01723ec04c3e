"""Writes deploy/grafana/*.json, the dashboards, from the tables below; --check says whether they are as written here.

usage: scripts/dashboards.py [--check]
A panel is a title, a unit, and its queries with their legends. `$model` and `$tenant` are variables of the dashboard.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana"
M = 'model_name=~"$model"'
T = 'tenant=~"$tenant"'
RATE = "[$__rate_interval]"


def quantiles(metric: str, labels: str = M, by: str = "le") -> list[tuple[str, str]]:
    return [
        (f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{labels}}}{RATE})))", f"p{round(q * 100)}")
        for q in (0.5, 0.95, 0.99)
    ]


def share(metric: str, by: str) -> str:
    """Of each value of `by` in all of a counter's growth."""
    grown = f"rate({metric}{{{M}}}{RATE})"
    return f"sum by ({by}) ({grown}) / on() group_left() sum({grown})"


def rate(metric: str, by: str = "", labels: str = M) -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate({metric}{{{labels}}}{RATE}))"


def per_request(metric: str) -> str:
    return f"{rate(metric, 'tenant', T)} / {rate('mlxs_tenant_requests_total', 'tenant', T)}"


def mean(metric: str, labels: str = M) -> str:
    return f"{rate(metric + '_sum', labels=labels)} / {rate(metric + '_count', labels=labels)}"


HIT_RATE = f"{rate('vllm:prefix_cache_hits_total')} / {rate('vllm:prefix_cache_queries_total')}"

TENANT_TTFT = f"histogram_quantile(0.95, sum by (le, tenant) (rate(mlxs_tenant_time_to_first_token_seconds_bucket{{{T}}}{RATE})))"

DASHBOARDS = {
    "overview": (
        "mlx-serving: overview",
        [
            ("Requests per second", "reqps", [(rate("vllm:request_success_total", "finished_reason"), "{{finished_reason}}")]),
            ("Answers by status", "reqps", [("sum by (code) (rate(mlxs_http_responses_total[$__rate_interval]))", "{{code}}")]),
            (
                "Tokens per second",
                "short",
                [
                    (rate("vllm:prompt_tokens_total"), "prompt"),
                    (rate("vllm:generation_tokens_total"), "generated"),
                    (rate("vllm:prefix_cache_hits_total"), "from the cache"),
                ],
            ),
            (
                "Requests at once",
                "short",
                [
                    (f"sum(vllm:num_requests_running{{{M}}})", "running"),
                    (f"sum(vllm:num_requests_waiting{{{M}}})", "waiting"),
                    (f"sum(mlxs_requests_paused{{{M}}})", "paused"),
                ],
            ),
            ("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds")),
            ("Between tokens", "s", quantiles("vllm:inter_token_latency_seconds")),
            ("KV pages in use", "percentunit", [(f"vllm:kv_cache_usage_perc{{{M}}}", "{{model_name}}")]),
            (
                "Connections",
                "short",
                [("mlxs_http_connections", "open"), ("mlxs_websockets", "WebSockets"), ("mlxs_streams", "streams")],
            ),
            (
                "Memory",
                "bytes",
                [
                    ("process_resident_memory_bytes", "resident"),
                    (f"sum(mlxs_model_weight_bytes{{{M}}})", "weights"),
                    (f"sum(mlxs_model_kv_bytes{{{M}}})", "KV cache"),
                ],
            ),
            ("Processor", "short", [("rate(process_cpu_seconds_total[$__rate_interval])", "cores")]),
        ],
    ),
    "latency": (
        "mlx-serving: latency",
        [
            ("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds")),
            ("Between tokens", "s", quantiles("vllm:inter_token_latency_seconds")),
            ("Mean between tokens, by request", "s", quantiles("vllm:request_time_per_output_token_seconds")),
            ("Whole requests", "s", quantiles("vllm:e2e_request_latency_seconds")),
            ("Queue", "s", quantiles("vllm:request_queue_time_seconds")),
            ("Prefill", "s", quantiles("vllm:request_prefill_time_seconds")),
            ("Decode", "s", quantiles("vllm:request_decode_time_seconds")),
            ("Tokenizing", "s", quantiles("mlxs_tokenize_duration_seconds")),
            ("Where requests' time goes", "percentunit", [(share("mlxs_request_part_seconds_total", "part"), "{{part}}")]),
            ("Sockets that were full", "s", [(f"rate(mlxs_socket_wait_seconds_total{RATE})", "waited")]),
            (
                "Targets",
                "reqps",
                [
                    (rate("mlxs_slo_met_total"), "met"),
                    (rate("mlxs_slo_missed_total", "target"), "missed {{target}}"),
                    (rate("mlxs_slo_refused_total"), "refused"),
                ],
            ),
            ("Tokens of requests that met their target", "short", [(rate("mlxs_goodput_tokens_total"), "goodput")]),
        ],
    ),
    "kv": (
        "mlx-serving: KV cache",
        [
            ("Pages", "short", [(f"sum by (state) (mlxs_kv_pages{{{M}}})", "{{state}}")]),
            ("In use", "percentunit", [(f"vllm:kv_cache_usage_perc{{{M}}}", "{{model_name}}")]),
            ("Prefix cache hits", "percentunit", [(HIT_RATE, "of prompt tokens")]),
            ("Requests that missed, by reason", "reqps", [(rate("mlxs_prefix_cache_misses_total", "reason"), "{{reason}}")]),
            ("Cached prompts", "short", [(f"mlxs_prefix_cache_entries{{{M}}}", "{{model_name}}")]),
            (
                "Pages given up per second",
                "short",
                [
                    (rate("mlxs_prefix_cache_evicted_pages_total"), "evicted"),
                    (rate("mlxs_prefix_cache_expired_pages_total"), "expired"),
                ],
            ),
            ("Oldest cached page", "s", [(f"mlxs_kv_oldest_cached_page_age_seconds{{{M}}}", "{{model_name}}")]),
            ("Age of pages that were found", "s", [(mean("mlxs_kv_page_reuse_age_seconds"), "mean")]),
            ("Preemptions", "reqps", [(rate("vllm:num_preemptions_total"), "preempted")]),
            (
                "Disk tier",
                "short",
                [
                    (rate("mlxs_prefix_cache_disk_saved_pages_total"), "saved pages/s"),
                    (rate("mlxs_prefix_cache_disk_restored_pages_total"), "restored pages/s"),
                ],
            ),
        ],
    ),
    "scheduler": (
        "mlx-serving: scheduler and steps",
        [
            ("A step", "s", quantiles("mlxs_step_duration_seconds")),
            ("Where steps' time goes", "percentunit", [(share("mlxs_step_seconds_total", "part"), "{{part}}")]),
            ("Steps per second", "short", [(rate("mlxs_steps_total"), "steps"), (rate("mlxs_failed_steps_total"), "failed")]),
            (
                "Tokens of a step",
                "short",
                [(mean("vllm:iteration_tokens_total"), "mean"), (f"max(mlxs_step_token_budget{{{M}}})", "budget")],
            ),
            ("Blocked tokens, by cause", "short", [(f"sum by (cause) (mlxs_blocked_tokens{{{M}}})", "{{cause}}")]),
            (
                "Queue",
                "short",
                [
                    (f"sum(vllm:num_requests_waiting{{{M}}})", "waiting"),
                    (f"sum(mlxs_window_queue_depth_smoothed{{{M}}})", "smoothed"),
                ],
            ),
            (
                "Admissions",
                "reqps",
                [(rate("mlxs_requests_admitted_total"), "admitted"), (rate("mlxs_requests_refused_total"), "refused")],
            ),
            ("Admission window", "s", [(f"mlxs_window_seconds{{{M}}}", "{{model_name}}")]),
            ("Batches that started", "short", [(rate("mlxs_window_batches_total", "path"), "{{path}}")]),
            ("Grammar masks", "s", [(rate("mlxs_mask_seconds_total"), "seconds per second")]),
            ("Preemptions", "reqps", [(rate("vllm:num_preemptions_total"), "preempted")]),
            ("Stalls", "short", [("increase(mlxs_stalls_total[$__rate_interval])", "stalls")]),
        ],
    ),
    "tenants": (
        "mlx-serving: tenants",
        [
            ("Requests per second", "reqps", [(rate("mlxs_tenant_requests_total", "tenant", T), "{{tenant}}")]),
            ("Failures per second", "reqps", [(rate("mlxs_tenant_errors_total", "tenant", T), "{{tenant}}")]),
            (
                "Generated tokens per second",
                "short",
                [(rate("mlxs_tenant_tokens_total", "tenant", T + ', kind="generated"'), "{{tenant}}")],
            ),
            (
                "Prompt tokens per second",
                "short",
                [(rate("mlxs_tenant_tokens_total", "tenant", T + ', kind="prompt"'), "{{tenant}}")],
            ),
            ("Mean wait", "s", [(per_request("mlxs_tenant_queue_seconds_total"), "{{tenant}}")]),
            ("Time to first token, p95", "s", [(TENANT_TTFT, "{{tenant}}")]),
            ("Mean request", "s", [(per_request("mlxs_tenant_request_seconds_total"), "{{tenant}}")]),
        ],
    ),
}


def variable(name: str, query: str) -> dict:
    return {
        "name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query,
        "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def dashboard(name: str) -> dict:
    title, panels = DASHBOARDS[name]
    made = []
    for i, (heading, unit, queries) in enumerate(panels):
        source = {"type": "prometheus", "uid": "${datasource}"}
        made.append({
            "id": i + 1, "type": "timeseries", "title": heading, "datasource": source,
            "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(ord("A") + k), "datasource": source, "expr": expr, "legendFormat": legend}
                for k, (expr, legend) in enumerate(queries)
            ],
        })  # fmt: skip
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    chosen = (
        variable("tenant", "label_values(mlxs_tenant_requests_total, tenant)")
        if name == "tenants"
        else variable("model", "label_values(mlxs_steps_total, model_name)")
    )
    return {
        "uid": f"mlxs-{name}", "title": title, "tags": ["mlx-serving"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "10s", "time": {"from": "now-30m", "to": "now"}, "timezone": "browser",
        "templating": {"list": [source, chosen]}, "panels": made,
    }  # fmt: skip


def main() -> int:
    stale = []
    for name in DASHBOARDS:
        path = FOLDER / f"{name}.json"
        text = json.dumps(dashboard(name), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"dashboards: {', '.join(stale)} differ from scripts/dashboards.py: run it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
