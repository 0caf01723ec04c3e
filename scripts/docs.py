"""Writes docs/cli.md, docs/config.md, docs/metrics.md, docs/http-api.md and config/runtime.yaml from what the program itself says
and docs/cpp-api.md from the public headers, and fails on a relative link in README.md or docs/ that leads nowhere.

usage: scripts/docs.py PROGRAM
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import api_page

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


CONFIG_INTRO = """# Configuration

Written by `make docs` from `mlx-serving config --explain`.

`mlx-serving serve` takes each value from the first of these that has it:

1. its flag,
2. its variable: `MLXS_` and the key in capitals (`server.port` is `MLXS_SERVER_PORT`), or the older name that stands beside it,
3. the block `environments.NAME` of the file, where `MLXS_ENV` (else `NODE_ENV`) is NAME,
4. the file: `--config FILE`, else `config/runtime.yaml` of the working directory, else `~/.config/mlx-serving/runtime.yaml`,
5. the default.

[config/runtime.yaml](../config/runtime.yaml) has every key, commented out, with its default. A number outside its range is moved
inside, with a warning (from a flag it is refused); a key that nobody knows, or a value of another type, is refused with file,
line and what would be right, all at once. `config --check FILE` does that without a server, `config show` says what holds and
where it comes from, `config --explain KEY` what a key does.

A preset (`gpu_scheduler.preset`) stands for the values of `gpu_scheduler.presets.NAME` at the place where it is chosen; in a file
it yields to that file's own keys, and always to a variable that names one value.

```yaml
server:
  port: 9000
  cors_origins: [https://chat.example]
mlx:
  concurrency_limit: 32       # requests at once, per model
prompt_cache:
  persistence:
    enabled: true             # computed prompts outlive the server
    max_bytes: 10GiB
scheduling:
  tenant_weights: {alice: 2}  # twice the share of the others
environments:
  production:
    server: {host: 0.0.0.0, api_keys_file: /etc/mlx-serving/keys}
```
"""
ABSENT_INTRO = """
## Not in this build

Keys and variables of the documents that this server was made after, whose mechanism is not there or needs no switch. Where a file
or the environment has one, `serve` says so by name.

| key or variable | why, and what instead |
|---|---|
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def config_rows(keys: list[dict]) -> list[str]:
    lines: list[str] = []
    section = None
    for key in keys:
        if (top := key["key"].partition(".")[0]) != section:
            section = top
            lines.append(f"\n## {section}\n")
            lines += ["| key | values | default | meaning | flag, variables, other names | sets |", "|---|---|---|---|---|---|"]
        names = [key["flag"], *(name for name in key["variables"] if not name.startswith("MLXS_") or name == "MLXS_API_KEY")]
        names += [f"{alias} (file)" for alias in key["aliases"]]
        row = [f"`{key['key']}`", key["values"], key["default"] or "none", key["meaning"]]
        quoted = [f"`{name}`" if "(file)" not in name else f"`{name[:-7]}` in the file" for name in names if name]
        row += [", ".join(quoted), f"`{key['sets']}`"]
        lines.append("| " + " | ".join(map(cell, row)) + " |")
    return lines


def write_config(program: str) -> None:
    def ask(*arguments: str) -> str:
        return subprocess.run([program, "config", *arguments], capture_output=True, text=True, check=True).stdout

    table = json.loads(ask("--explain", "--json"))
    absent = "\n".join(f"| `{row['name']}` | {cell(row['reason'])} |" for row in table["absent"])
    text = CONFIG_INTRO + "\n".join(config_rows(table["keys"])) + "\n" + ABSENT_INTRO + absent + "\n"
    (ROOT / "docs" / "config.md").write_text(text)
    (ROOT / "config").mkdir(exist_ok=True)
    (ROOT / "config" / "runtime.yaml").write_text(ask("--defaults"))


METRICS = """# Metrics

Written by `make docs` from the program's own registry (`mlx-serving metrics`). `GET /metrics` has them all from the first scrape
on; names, types, labels and buckets are vLLM's where it has them ([one by one](#vllms-metrics-one-by-one)), so that its
dashboards and alerts work here. `engine` is always 0: each model has one. A scrape reads counters that steps write without a
lock. How to use them: [observability.md](observability.md).

"""


def write_metrics(program: str) -> None:
    names = (ROOT / "scripts" / "metric_names.md").read_text().partition("\n")[2]  # without its first line, a remark
    table = subprocess.run([program, "metrics"], capture_output=True, text=True, check=True).stdout
    (ROOT / "docs" / "metrics.md").write_text(METRICS + table + "\n" + names)


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


def write_http_api(program: str) -> None:
    """From the description that a server gives of itself; it needs no model for it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "serve", "mock:tokens=1,delay=0", "--no-config", "--port", "0", "--flight-dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            ready = server.stdout.readline()
            url = re.search(r" on (http://\S+)", ready)
            if url is None:
                raise SystemExit(f"docs: the server did not start: {' '.join(command)}")
            with urllib.request.urlopen(f"{url[1]}/openapi.json", timeout=60) as answer:
                document = json.load(answer)
        finally:
            server.terminate()
            server.wait()
    (ROOT / "docs" / "http-api.md").write_text(api_page.page(document))


def broken_links() -> list[str]:
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def main() -> int:
    write_cli(sys.argv[1])
    write_config(sys.argv[1])
    write_metrics(sys.argv[1])
    write_cpp_api()
    write_http_api(sys.argv[1])
    broken = broken_links()
    for link in broken:
        print(f"docs: broken link in {link}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
