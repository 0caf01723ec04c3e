"""Our server beside llama.cpp's on the same load: `mlx-serving bench serve` against each in turn, started afresh for every round.

usage: serve.py BINARY LLAMA_SERVER MODEL [--rounds N] [--clients 64] [--requests 256] …
The load: chats behind one system prompt of about 1,000 tokens, mixed short and long prompts, answers of at most 64 tokens. Prints
a table and writes results-serve.json. What a repeated prompt costs of a cold one is measured on ours alone.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
FIGURES = [
    ("tokens/s generated", "tokens_per_second"),
    ("requests/s", "requests_per_second"),
    ("first token p50, ms", "ttft_p50"),
]
FIGURES += [("first token p95, ms", "ttft_p95"), ("between tokens p95, ms", "itl_p95")]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process on a port of its own, ready when its /health says so."""

    def __init__(self, command, port):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with status {self.process.returncode}")
            time.sleep(0.1)
        raise SystemExit(f"{command[0]} was not ready within a minute")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)


def ours(args):
    port = free_port()
    return Server([args.binary, "serve", args.model, "--port", str(port), "--threads", str(args.threads)], port)


def theirs(args):
    """Continuous batching and prompt caching as by default; one KV buffer for all slots, its batch sizes as they come."""
    port = free_port()
    flags = ["--parallel", str(args.clients), "--kv-unified", "-c", str(args.context), "--threads", str(args.threads)]
    return Server([args.llama_server, "-m", args.model, "--port", str(port), *flags], port)


def load(args, server):
    flags = ["--clients", args.clients, "--requests", args.requests, "--prefix-words", 1000, "--prompt-words", 60]
    flags += ["--long-share", 0.1, "--long-words", 1000, "--max-tokens", 64]
    command = [args.binary, "bench", "serve", "--url", server.url, "--json", *map(str, flags)]
    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "tokens_per_second": out["tokens_per_second"],
        "requests_per_second": out["requests"] / out["seconds"],
        "ttft_p50": out["ttft_ms"]["p50"],
        "ttft_p95": out["ttft_ms"]["p95"],
        "itl_p95": out["itl_ms"]["p95"],
    }


def seconds_of(server, model, prompt):
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    request = urllib.request.Request(
        server.url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    started = time.perf_counter()
    answer = json.load(urllib.request.urlopen(request, timeout=120))
    return time.perf_counter() - started, answer["usage"]["prompt_tokens"]


def repeated_prefix(args, repeats=9):
    """Median milliseconds until the one token of a prompt of 1,000 tokens, unseen and seen."""
    with ours(args) as server:
        model = json.load(urllib.request.urlopen(server.url + "/v1/models", timeout=10))["data"][0]["id"]
        prompts = [f"case {i}: " + " ".join(f"word{(i * 7 + j) % 10}" for j in range(500)) for i in range(repeats)]
        cold, tokens = zip(*(seconds_of(server, model, prompt) for prompt in prompts), strict=True)
        warm, _ = zip(*(seconds_of(server, model, prompt) for prompt in prompts), strict=True)
        return {"cold_ms": 1e3 * statistics.median(cold), "warm_ms": 1e3 * statistics.median(warm), "tokens": tokens[0]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("llama_server")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--context", type=int, default=160 * 1024, help="tokens of the peer's KV buffer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()

    rounds = []
    for i in range(args.rounds):
        result = {}
        for side in (ours, theirs) if i % 2 == 0 else (theirs, ours):
            with side(args) as server:
                result[side.__name__] = load(args, server)
        rounds.append(result)
        a, b = result["ours"], result["theirs"]
        print(f"round {i + 1}: {a['tokens_per_second']:.0f} and {b['tokens_per_second']:.0f} tokens/s", flush=True)
    prefix = repeated_prefix(args)
    print(f"\n{args.clients} clients, {args.requests} requests a round, {args.threads} threads, {Path(args.model).name}\n")
    print("| | ours | llama.cpp's server | ratio (min … max) |\n|---|---:|---:|---:|")
    for name, key in FIGURES:
        a, b = ([r[side][key] for r in rounds] for side in ("ours", "theirs"))
        ratios = (
            [x / y for x, y in zip(a, b, strict=True)] if key.endswith("second") else [y / x for x, y in zip(a, b, strict=True)]
        )
        spread = f"**{statistics.median(ratios):.2f}×** ({min(ratios):.2f} … {max(ratios):.2f})"
        print(f"| {name} | {statistics.median(a):.0f} | {statistics.median(b):.0f} | {spread} |")
    share = prefix["warm_ms"] / prefix["cold_ms"]
    print(f"\nA prompt seen before takes {share:.1%} of its first time ({prefix['warm_ms']:.1f} of {prefix['cold_ms']:.1f} ms).")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results-serve.json").write_text(json.dumps({"rounds": rounds, "prefix": prefix}, indent=2) + "\n")


main()
