"""Writes docs/cli.md from the program's own --help, docs/metrics.md from its registry and docs/cpp-api.md from the public
headers, and fails on a relative link in README.md or docs/ that leads nowhere.

usage: scripts/docs.py PROGRAM
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def help_text(program: str, *command: str) -> str:
    shown = subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in shown.splitlines()).strip()


def subcommands(text: str) -> list[str]:
    _, _, listed = text.partition("Subcommands:")
    return re.findall(r"^  (\w+) ", listed.partition("\n\n")[0], re.MULTILINE)


def write_cli(program: str) -> None:
    parts = ["# Commands\n\nWritten by `make docs` from the program's own `--help`.\n"]

    def describe(*command: str) -> None:
        text = help_text(program, *command)
        if command:
            parts.append(f"## {' '.join(command)}\n")
        parts.append(f"```\n{text}\n```\n")
        for name in subcommands(text):
            describe(*command, name)

    describe()
    (ROOT / "docs" / "cli.md").write_text("\n".join(parts))


METRICS = """# Metrics

Written by `make docs` from the program's own registry (`mlx-serving metrics`). `GET /metrics` has them all from the first scrape
on; names, types and buckets are vLLM's where it has them, so that its dashboards and alerts work here. A scrape reads counters
that steps write without a lock. How to use them: [observability.md](observability.md).

"""

# What the documents before this program called them, where the name is another now.
OLDER_NAMES = """
## Older names

| there | here |
|---|---|
| `requests_total`, `request_errors_total` | `vllm:request_success_total`, `mlxs_http_responses_total` |
| `request_latency_ms`, `kr_serve_generation_duration_ms` | `vllm:e2e_request_latency_seconds` |
| `mlx_latency_p50_milliseconds` … `p99` | quantiles of `mlxs_step_duration_seconds` |
| `ttft_ms` | `vllm:time_to_first_token_seconds` |
| `tokens_generated_total` | `vllm:generation_tokens_total` |
| `tokens_per_second`, `mlx_throughput_tokens_per_second` | its rate |
| `pending_requests`, `mlx_queue_depth` | `vllm:num_requests_waiting` |
| `stream_count` | `mlxs_streams` |
| `loaded_models`, `model_load_duration_ms` | `mlxs_loaded_models`, `mlxs_model_load_seconds` |
| `model_cache_hits_total` | `vllm:prefix_cache_hits_total` |
| `mlx_batch_size_current`, `kr_serve_batch_size` | `vllm:iteration_tokens_total`, `mlxs_window_batch_size` |
| `mlx_mode_transitions_total` | `mlxs_window_transitions_total` |
| `mlx_uptime_seconds` | `time() - process_start_time_seconds` |
"""


def write_metrics(program: str) -> None:
    table = subprocess.run([program, "metrics"], capture_output=True, text=True, check=True).stdout
    (ROOT / "docs" / "metrics.md").write_text(METRICS + table + OLDER_NAMES)


def leading_comment(lines: list[str]) -> tuple[str, list[str]]:
    """A header's opening comment as prose, and what follows it."""
    count = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    return " ".join(line[2:].strip() for line in lines[:count]), lines[count:]


def write_cpp_api() -> None:
    parts = [
        "# C++ API\n\nWritten by `make docs` from the public headers, `include/mlxs/`. `find_package(mlx-serving)` finds the "
        "library; [architecture.md](architecture.md) says how it is built.\n"
    ]
    for header in sorted((ROOT / "include" / "mlxs").glob("*.h"), key=lambda path: (path.name != "engine.h", path.name)):
        about, rest = leading_comment(header.read_text().splitlines())
        inside = "\n".join(rest).partition("namespace mlxs {\n")[2].rpartition("}  // namespace mlxs")[0]
        code = "\n".join(line for line in inside.strip().splitlines() if not line.startswith("namespace"))
        parts.append(f"## mlxs/{header.name}\n\n{about}\n\n```cpp\n{code}\n```\n")
    (ROOT / "docs" / "cpp-api.md").write_text("\n".join(parts))


def broken_links() -> list[str]:
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def main() -> int:
    write_cli(sys.argv[1])
    write_metrics(sys.argv[1])
    write_cpp_api()
    broken = broken_links()
    for link in broken:
        print(f"docs: broken link in {link}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
