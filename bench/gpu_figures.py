#!/usr/bin/env python3
"""The tables of docs/cuda.md as this machine's GPU makes them: `mlx-serving bench --synthetic` of each model, in Markdown.

usage: bench/gpu_figures.py build/mlx-serving [--models qwen3-30b-a3b-4bit,...] [--streams 1,4,8,16,32,64] [--steps 64]
       [--rounds 1] [--json FILE] [--backend cuda]
Decode at 512 tokens of context; prefill of 512-token prompts, 4,096 rows a step. With more rounds the models take turns, and a
cell is the median.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
MODELS = {
    "qwen3-30b-a3b-4bit": "Qwen3-30B-A3B, 4-bit g64",
    "gemma-2-27b-4bit": "Gemma-2-27B, 4-bit g64",
    "llama-3.2-3b-4bit": "Llama-3.2-3B, 4-bit g64",
    "qwen3-0.6b-bf16": "Qwen3-0.6B, BF16",
}


def measure(program, model, args):
    command = [program, "bench", "synthetic", str(CONFIGS / f"{model}.json"), "--backend", args.backend, "--json"]
    command += ["--streams", args.streams, "--steps", str(args.steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f"gpu_figures: {model}: exit status {done.returncode}")
    return json.loads(done.stdout)


def median(rounds, of):
    return statistics.median(of(one) for one in rounds)


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--models", default=",".join(MODELS), help="names in bench/configs")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--streams", default="1,4,8,16,32,64")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="every round's figures, too")
    args = parser.parse_args()

    found = {model: [] for model in args.models.split(",")}
    for _ in range(args.rounds):
        for model, rounds in found.items():
            rounds.append(measure(args.program, model, args))
            print(f"{model}: {rounds[-1]['prefill_tokens_per_second']:,.0f} tokens/s of prefill", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))

    first = next(iter(found.values()))[0]
    print(f"{first['device']}; reads {median(sum(found.values(), []), lambda one: one['read_gb_per_second']):,.0f} GB/s\n")
    streams = [figure["streams"] for figure in first["decode"]]
    rows = []
    for model, rounds in found.items():
        cells, shares = [], []
        for i in range(len(streams)):
            rate = median(rounds, lambda one, i=i: one["decode"][i]["tokens_per_second"])
            limit = median(rounds, lambda one, i=i: one["decode"][i]["limit_tokens_per_second"])
            cells.append(f"{rate:,.0f}")
            shares.append(f"{100 * rate / limit:.0f}" if limit else "?")
        rows.append([MODELS.get(model, model), *cells, ", ".join(shares) + " %"])
    table(["streams", *map(str, streams), "of limit"], rows)
    rows = []
    for model, rounds in found.items():
        known = rounds[0]["decode"][0]["idle_share"] is not None
        idle = [median(rounds, lambda one, i=i: one["decode"][i]["idle_share"]) for i in range(len(streams))] if known else []
        host = [median(rounds, lambda one, i=i: one["decode"][i]["host_us"]) for i in range(len(streams))]
        rows.append(
            [
                MODELS.get(model, model),
                f"{median(rounds, lambda one: one['prefill_tokens_per_second']):,.0f}",
                f"{100 * min(idle):.1f} to {100 * max(idle):.1f} %" if known else "?",
                f"{min(host):.0f} to {max(host):.0f} µs",
            ]
        )
    table(["", "prefill, tokens/s", "idle between steps", "host a step"], rows)


if __name__ == "__main__":
    main()
