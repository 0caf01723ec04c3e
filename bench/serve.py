"""Our server beside llama.cpp's on the same loads: `mlx-serving bench serve` against each in turn, started afresh every round.

usage: serve.py BINARY LLAMA_SERVER MODEL [--rounds N] [--loads 1,8,64] [--slots N] …
A load is so many clients that each send a chat as soon as their last one is answered: one system prompt of about 1,000 tokens
that all share, then 60 words, or 1,000 in one of ten; answers of at most 64 tokens. Prints a table and writes
results-serve.json. What a repeated prompt costs of a cold one is measured on ours alone.
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
FIGURES = {  # name in the table: key, whether more is better
    "tokens/s, prompts and answers": ("total_tokens_per_second", True),
    "tokens/s generated": ("tokens_per_second", True),
    "first token p50, ms": ("ttft_p50", False),
    "first token p95, ms": ("ttft_p95", False),
    "between tokens p50, ms": ("itl_p50", False),
    "between tokens p95, ms": ("itl_p95", False),
}


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
    """Continuous batching and prompt caching as by default; its batch sizes as they come.

    Each slot has its own KV: in one for all (--kv-unified) every token looks at the cells of all requests.
    """
    port = free_port()
    flags = ["--parallel", str(args.slots), "--no-kv-unified", "-c", str(args.context), "--threads", str(args.threads)]
    return Server([args.llama_server, "-m", args.model, "--port", str(port), *flags], port)


def load(args, server, clients):
    flags = {"--clients": clients, "--requests": args.requests or max(16, 4 * clients), "--seed": clients}
    flags |= {
        "--prefix-words": args.prefix_words,
        "--prompt-words": 60,
        "--long-share": 0.1,
        "--long-words": 1000,
        "--max-tokens": 64,
    }
    command = [args.binary, "bench", "serve", "--url", server.url, "--json"]
    for flag, value in flags.items():
        command += [flag, str(value)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{run.stderr}")
    out = json.loads(run.stdout)
    if out["without_text"]:
        raise SystemExit(f"{out['without_text']} of {out['requests']} answers had no text: {run.stdout}")
    if out["failed"]:
        raise SystemExit(f"{out['failed']} of {out['requests']} requests failed: {run.stdout}")
    return {
        "total_tokens_per_second": (out["prompt_tokens"] + out["generated_tokens"]) / out["seconds"],
        "tokens_per_second": out["tokens_per_second"],
        "prompt_tokens": out["prompt_tokens"],
        "generated_tokens": out["generated_tokens"],
        "ttft_p50": out["ttft_ms"]["p50"],
        "ttft_p95": out["ttft_ms"]["p95"],
        "itl_p50": out["itl_ms"]["p50"],
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


def print_load(clients, rounds):
    who = "1 client" if clients == 1 else f"{clients} clients"
    print(f"\n| {who} | ours | llama.cpp's server | ratio (min … max) |\n|---|---:|---:|---:|")
    for name, (key, more_is_better) in FIGURES.items():
        a, b = ([r[side][key] for r in rounds] for side in ("ours", "theirs"))
        ratios = [x / y if more_is_better else y / x for x, y in zip(a, b, strict=True)]
        spread = f"**{statistics.median(ratios):.2f}×** ({min(ratios):.2f} … {max(ratios):.2f})"
        print(f"| {name} | {statistics.median(a):.0f} | {statistics.median(b):.0f} | {spread} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("llama_server")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loads", default="1,8,64", help="clients of each load")
    parser.add_argument("--requests", type=int, default=0, help="of a load; 0: four a client, at least 16")
    parser.add_argument("--prefix-words", type=int, default=1000, help="of the system prompt")
    parser.add_argument("--slots", type=int, default=64, help="requests that the peer runs at once")
    parser.add_argument("--context", type=int, default=192 * 1024, help="tokens of the peer's KV, for all slots")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    loads = [int(clients) for clients in args.loads.split(",")]

    rounds = {clients: [] for clients in loads}
    for i in range(args.rounds):
        results = {}
        for side in (ours, theirs) if i % 2 == 0 else (theirs, ours):
            with side(args) as server:
                results[side.__name__] = {}
                for clients in loads:
                    figures = results[side.__name__][clients] = load(args, server, clients)
                    print(
                        f"bench: round {i + 1}, {side.__name__}, {clients} clients: "
                        f"{figures['total_tokens_per_second']:.0f} tokens/s, "
                        f"first token p95 {figures['ttft_p95']:.0f} ms",
                        flush=True,
                    )
        for clients in loads:
            rounds[clients].append({side: result[clients] for side, result in results.items()})
    prefix = repeated_prefix(args)
    print(f"\n{Path(args.model).name}, {args.threads} threads, {args.rounds} rounds")
    for clients in loads:
        print_load(clients, rounds[clients])
    share = prefix["warm_ms"] / prefix["cold_ms"]
    print(
        f"\nA prompt of {prefix['tokens']} tokens seen before takes {share:.1%} of its first time "
        f"({prefix['warm_ms']:.1f} of {prefix['cold_ms']:.1f} ms)."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results-serve.json").write_text(json.dumps({"loads": rounds, "prefix": prefix}, indent=2) + "\n")


main()
