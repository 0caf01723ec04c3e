#!/usr/bin/env python3
"""The scheduler's figures from the simulator, and the promises that they must keep: `make sim`.

usage: sim.py BINARY [--days 7] [--only day,week,...] [--figures docs/img]
Runs `mlx-serving sim` for hours of traffic and prints what docs/scheduling.md says; ends with status 1 if a promise is broken:
a day at 10 requests/s in 60 s of this machine; goodput twice that of FCFS without chunks on the long-prompt mix, p99 of the
gaps between tokens within 1.5 times their target while 32k prompts arrive; a flood that costs the others nothing; nobody starves
in a week of overload. Figures are deterministic but for the seconds that the day takes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

TPOT_TARGET_S = 0.05


class Promises:
    def __init__(self):
        self.broken = 0

    def check(self, what, holds):
        print(f"  {'kept' if holds else 'BROKEN'}: {what}", flush=True)
        self.broken += not holds


def simulate(binary, *arguments):
    started = time.perf_counter()
    run = subprocess.run([binary, "sim", "--json", *map(str, arguments)], check=True, capture_output=True, text=True)
    runs = {}
    for one in json.loads(run.stdout)["runs"]:
        runs[one["policy"]] = one
    return runs, time.perf_counter() - started


def ms(seconds):
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


def table(runs):
    rows = {
        "within targets": lambda r: f"{r['slo_share']:.1%}",
        "goodput, requests/s": lambda r: f"{r['goodput']:.2f}",
        "first token p50": lambda r: ms(r["ttft"]["p50_s"]),
        "first token p95": lambda r: ms(r["ttft"]["p95_s"]),
        "first token p99": lambda r: ms(r["ttft"]["p99_s"]),
        "first token, longest": lambda r: ms(r["ttft"]["max_s"]),
        "between tokens p99": lambda r: ms(r["itl"]["p99_s"]),
        "tokens/s generated": lambda r: f"{r['generated_tokens'] / r['seconds']:.0f}",
    }
    print("| | " + " | ".join(runs) + " |\n|---|" + "---:|" * len(runs))
    for name, value in rows.items():
        print(f"| {name} | " + " | ".join(value(r) for r in runs.values()) + " |")


def long_prompts(args, promises):
    print("\nOne prompt in twenty has 16k to 32k tokens, 12 requests/s:\n")
    runs, _ = simulate(args.binary, "--scenario", "long", "--rate", 12, "--seconds", 3600, *args.svg("sim-long"))
    table(runs)
    ours, whole = runs["ours"], runs["fcfs-whole"]
    ratio = ours["goodput"] / max(whole["goodput"], 1e-9)
    promises.check(f"goodput is {ratio:.1f} times that of FCFS with whole prompts (2)", ratio >= 2)
    itl = ours["itl"]["p99_s"] / TPOT_TARGET_S
    promises.check(f"p99 between tokens is {itl:.2f} of its target (1.5)", itl <= 1.5)


def goodput(args, promises):
    rates = "2,4,6,8,10,12,14,16,18,20"
    simulate(args.binary, "--scenario", "long", "--rate", rates, "--seconds", 900, *args.svg("sim-goodput"))


def flood(args, promises):
    print("\nA flood of one tenant, twenty times as much as each of two others, for a third of the time:\n")
    runs, _ = simulate(
        args.binary, "--scenario", "flood", "--rate", 8, "--seconds", 600, "--policies", "fcfs,ours", *args.svg("sim-flood")
    )
    table(runs)
    pace = {name: r["generated_tokens"] / r["seconds"] for name, r in runs.items()}
    others = {name: [t for t in r["tenants"] if t["tenant"] != "flood"] for name, r in runs.items()}
    for name, tenants in others.items():
        share = sum(t["within_slo"] for t in tenants) / sum(t["submitted"] for t in tenants)
        worst = max(t["ttft"]["p95_s"] for t in tenants)
        refused = sum(t["refused"] for t in tenants) / sum(t["submitted"] for t in tenants)
        print(f"{name}: the two others: within targets {share:.1%}, first token p95 {ms(worst)}, refused {refused:.1%}")
    promises.check("none of the others' requests is refused", not any(t["refused"] for t in others["ours"]))
    ratio = pace["ours"] / pace["fcfs"]
    promises.check(f"throughput is {ratio:.1%} of FCFS's (98 %)", ratio >= 0.98)


def window(args, promises):
    print("\nThe admission window, beside none (throughput, first token p50 and p99, fast path):\n")
    presets = ["latency_sensitive", "balanced", "throughput_optimized"]
    print("| traffic | " + " | ".join(presets) + " |\n|---|" + "---:|" * len(presets))
    for scenario in ("steady", "bursty"):
        for rate in (1, 5, 10, 20, 26):
            base = ["--scenario", scenario, "--rate", rate, "--seconds", 600, "--policies", "ours"]
            off = simulate(args.binary, *base)[0]["ours"]
            cells = []
            for preset in presets:
                on = simulate(args.binary, *base, "--scheduler-preset", preset)[0]["ours"]
                pace = (on["generated_tokens"] / on["seconds"]) / (off["generated_tokens"] / off["seconds"]) - 1
                p50, p99 = (1e3 * (on["ttft"][p] - off["ttft"][p]) for p in ("p50_s", "p99_s"))
                cells.append(f"{pace:+.2%}, {p50:+.1f} ms, {p99:+.1f} ms")
            print(f"| {scenario}, {rate}/s | " + " | ".join(cells) + " |", flush=True)


def day(args, promises):
    runs, seconds = simulate(args.binary, "--scenario", "steady", "--rate", 10, "--seconds", 86400, "--policies", "ours")
    print(f"\nA day at 10 requests/s, {runs['ours']['submitted']:,} requests: {seconds:.1f} s of this machine")
    promises.check("a day takes 60 s at most", seconds <= 60)


def overload(args, promises):
    runs, seconds = simulate(
        args.binary, "--scenario", "mixed", "--rate", 25, "--seconds", round(86400 * args.days), "--policies", "ours"
    )
    r = runs["ours"]
    print(f"\n{args.days:g} days of overload, {r['submitted']:,} requests of four tenants and tiers ({seconds:.0f} s here):")
    for t in r["tenants"]:
        p99, longest = ms(t["ttft"]["p99_s"]), ms(t["ttft"]["max_s"])
        print(f"  {t['tenant']}: {t['finished']:,} of {t['submitted']:,} answered, first token p99 {p99}, longest {longest}")
    ended = r["finished"] + r["cancelled"] + r["refused"]
    promises.check(f"every request ended: {ended:,} of {r['submitted']:,}", ended == r["submitted"])
    promises.check(f"it is an overload: {r['refused']:,} were refused", r["refused"] > r["submitted"] / 100)
    longest = max(t["ttft"]["max_s"] for t in r["tenants"])
    promises.check(f"nobody starves: the longest wait for a first token is {ms(longest)} (an hour)", longest < 3600)


PARTS = {"long": long_prompts, "goodput": goodput, "flood": flood, "window": window, "day": day, "overload": overload}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--days", type=float, default=7, help="of overload")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--figures", type=Path, help="a folder for SVG figures")
    args = parser.parse_args()
    args.svg = lambda name: ["--svg", args.figures / f"{name}.svg"] if args.figures else []
    promises = Promises()
    for part in args.only.split(","):
        PARTS[part](args, promises)
    sys.exit(1 if promises.broken else 0)


main()
