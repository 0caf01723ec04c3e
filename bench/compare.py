"""Our engine beside llama.cpp on this machine: alternating rounds, median ratios, and the physical limits of the same run.

usage: compare.py BINARY MODEL [--rounds 5] [--threads 2] [--only NAME] [--out bench/results]
Writes results.json, results.md and results.svg. Every figure is measured in this run; nothing is carried over.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

# name, case, streams, prompt tokens, tokens that we and that the peer generate, our flags. Where prompts are long our streams
# start one after the other, so that they need more tokens until all decode together; the peer decodes at its shortest contexts.
CASES = [
    ("prefill 512 tokens", "prefill", 1, 512, 4, 1, []),
    ("decode, 1 stream", "decode", 1, 16, 128, 128, []),
    ("decode, 4 streams", "decode", 4, 16, 96, 96, []),
    ("decode, 16 streams", "decode", 16, 16, 64, 64, []),
    ("decode, 16 streams, 512 context each", "decode", 16, 512, 64, 32, []),
    ("decode, 32 streams", "decode", 32, 16, 48, 48, []),
    ("decode, 32 streams, 1k context each", "decode", 32, 1024, 120, 32, []),
    ("the same, int8 KV", "decode", 32, 1024, 120, 32, ["--kv-cache-dtype", "int8"]),
]
START = "process start to first token"
STRUCTURED = "structured output, 16 streams"


def run_json(command, environment=None):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(args, case):
    _, kind, streams, context, tokens, _, flags = case
    command = [args.binary, "bench", "throughput", "--json", "--model", args.model, "--case", kind, *flags]
    command += ["--streams", str(streams), "--prompt-tokens", str(context), "--tokens", str(tokens)]
    return run_json(command + ["--threads", str(args.threads)])


def theirs(args, case):
    _, kind, streams, context, _, tokens, _ = case
    command = [sys.executable, HERE / "peer_llama.py", args.model, "--case", kind, "--streams", str(streams)]
    return run_json(command + ["--context", str(context), "--tokens", str(tokens), "--threads", str(args.threads)])


def first_token(args):
    """Process start to first token, page cache warm: the whole process against llama.cpp's load and first token alone."""
    started = time.perf_counter()
    subprocess.run(
        [args.binary, "run", args.model, "--raw", "--max-tokens", "1", "--temperature", "0", "The capital of France is"],
        check=True,
        capture_output=True,
    )
    seconds = time.perf_counter() - started
    return seconds, run_json([sys.executable, HERE / "peer_llama.py", args.model, "--case", "start"])["seconds"]


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(args, cases):
    rows = []
    for case in cases:
        pairs = []
        for round_number in range(args.rounds):
            order = (ours, theirs) if round_number % 2 == 0 else (theirs, ours)
            results = {side.__name__: side(args, case) for side in order}
            pairs.append((results["ours"], results["theirs"]))
            a, b = results["ours"]["tokens_per_second"], results["theirs"]["tokens_per_second"]
            print(f"  {case[0]}: round {round_number + 1}: {a:.0f} vs {b:.0f} tok/s = {a / b:.2f}x", file=sys.stderr)
        rows.append(
            {
                "name": case[0],
                "unit": "tok/s",
                "ours": spread([a["tokens_per_second"] for a, _ in pairs]),
                "peer": spread([b["tokens_per_second"] for _, b in pairs]),
                "ratio": spread([a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]),
                "overhead_share": statistics.median(a["overhead_share"] for a, _ in pairs),
                "weight_bytes": pairs[0][0]["weight_bytes"],
                "other_bytes": max(a["resident_bytes"] - a["weight_bytes"] - a["kv_bytes"] for a, _ in pairs),
            }
        )
    return rows


def measure_start(args):
    first_token(args)  # warm: packed weights written, files in the page cache
    pairs = [first_token(args) for _ in range(args.rounds)]
    return {
        "name": START,
        "unit": "ms",
        "ours": spread([1e3 * a for a, _ in pairs]),
        "peer": spread([1e3 * b for _, b in pairs]),
        "ratio": spread([b / a for a, b in pairs]),
    }


def measure_structured(args):
    """16 streams that obey a JSON schema beside 16 that are free, in short turns on one engine: what remains of the throughput,
    and what a token costs of processor time."""
    rounds = 10 * args.rounds
    pairs = ours(args, ("structured", "decode", 16, 16, 64, 0, ["--structured-pairs", str(rounds)]))
    for pair in pairs:
        pair["kept"] = pair["structured_tokens_per_second"] / pair["free_tokens_per_second"]
        pair["processor"] = pair["structured_processor_us_per_token"] / pair["free_processor_us_per_token"]
    kept = sorted(pair["kept"] for pair in pairs)
    # The median's 95 % interval, by ranks: it assumes nothing of how rounds differ.
    reach = round(0.98 * len(kept) ** 0.5)
    middle = len(kept) // 2
    interval = kept[max(0, middle - reach)], kept[min(len(kept) - 1, middle + reach)]
    median = {key: statistics.median(pair[key] for pair in pairs) for key in pairs[0]}
    return {"rounds": rounds, "kept": spread(kept), "interval": interval, "median": median}


def limit_note(row):
    """The share of the physical limit, measured in the same run, that our median reaches."""
    limits = row["limits"]
    rate = row["ours"]["median"]
    if row["name"] == "decode, 1 stream":
        share = rate * row["weight_bytes"] / 1e9 / limits["read_gb_per_second"]
        return f"{share:.0%} of {limits['read_gb_per_second']:.1f} GB/s"
    if row["name"].startswith("prefill") and limits["bf16_gflop_per_second"]:
        gflop = rate * 2 * 106.2e6 / 1e9  # the weights of all layers; the head runs for one row
        return f"{gflop / limits['bf16_gflop_per_second']:.0%} of {limits['bf16_gflop_per_second']:.0f} GFLOP/s (AMX bf16)"
    return ""


def markdown(rows, header):
    lines = [header, "", "| case | ours | llama.cpp | ratio (min … max) | physical limit |", "|---|---:|---:|---:|---|"]
    for r in rows:
        ratio = f"{r['ratio']['median']:.2f}× ({r['ratio']['min']:.2f} … {r['ratio']['max']:.2f})"
        ours_text, peer_text = (f"{r[side]['median']:.0f} {r['unit']}" for side in ("ours", "peer"))
        lines.append(f"| {r['name']} | {ours_text} | {peer_text} | **{ratio}** | {limit_note(r)} |")
    alone = [r for r in rows if r["name"] in ("decode, 1 stream", "decode, 32 streams")]
    for r in alone:
        lines += [
            "",
            f"{r['name']}: resident memory beyond weights and KV pages {r['other_bytes'] / 1e6:.0f} MB; "
            f"outside the kernels {r['overhead_share']:.1%} of a step.",
        ]
    return "\n".join(lines) + "\n"


def svg(rows, title):
    """Bars of the ratio, llama.cpp = 1; the whisker is min … max."""
    width, bar, left, top = 860, 26, 270, 56
    right = width - 90
    longest = max(max(r["ratio"]["max"] for r in rows), 2.0)
    x = lambda value: left + (right - left) * value / longest  # noqa: E731
    height = top + len(rows) * (bar + 14) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="14"><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="16" y="28" font-size="17" font-weight="600" fill="#111">{title}</text>'
    ]
    for i, r in enumerate(rows):
        y, q = top + i * (bar + 14), r["ratio"]
        middle = y + bar / 2
        out.append(
            f'<text x="{left - 12}" y="{middle + 5}" text-anchor="end" fill="#333">{r["name"]}</text>'
            f'<rect x="{left}" y="{y}" width="{x(q["median"]) - left:.1f}" height="{bar}" rx="3" fill="#2f6fde"/>'
            f'<line x1="{x(q["min"]):.1f}" x2="{x(q["max"]):.1f}" y1="{middle}" y2="{middle}" stroke="#0b2a66" stroke-width="2"/>'
            f'<text x="{max(x(q["max"]), x(q["median"])) + 8:.1f}" y="{middle + 5}" fill="#111">{q["median"]:.1f}×</text>'
        )
    out.append(
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{top - 10}" y2="{height - 18}" stroke="#c0392b" stroke-dasharray="4 3"/>'
        f'<text x="{x(1):.1f}" y="{height - 4}" text-anchor="middle" fill="#c0392b" font-size="12">llama.cpp = 1</text></svg>'
    )
    return "".join(out)


def span(rows, name):
    """What a limit measured, from the slowest to the fastest run."""
    low, high = (pick(r["limits"][name] for r in rows) for pick in (min, max))
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def merged(old, new):
    """All rows in the order of CASES; a name measured again replaces its older row."""
    by_name = {r["name"]: r for r in [*old, *new]}
    order = [*(case[0] for case in CASES), START]
    return [by_name[name] for name in order if name in by_name]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="cases whose name has a match of this regular expression")
    parser.add_argument("--merge", action="store_true", help="keep the rows of the results that this run does not measure")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()

    if re.search(args.only, STRUCTURED):
        found = measure_structured(args)
        kept, (low, high), median = found["kept"], found["interval"], found["median"]
        print(
            f"{STRUCTURED}, {found['rounds']} rounds: {kept['median']:.1%} of the throughput without a schema "
            f"(95 % interval {low:.1%} … {high:.1%}, rounds {kept['min']:.1%} … {kept['max']:.1%}): "
            f"{median['structured_tokens_per_second']:.0f} of {median['free_tokens_per_second']:.0f} tok/s; "
            f"processor time a token {median['processor']:.3f} times"
        )
        if args.only == STRUCTURED:
            return
    limits = run_json([args.binary, "bench", "limits", "--json", "--threads", str(args.threads)])
    rows = measure(args, [c for c in CASES if re.search(args.only, c[0])])
    if re.search(args.only, START):
        rows.append(measure_start(args))
    for row in rows:
        row.update(limits=limits, date=str(datetime.date.today()), rounds=args.rounds)
    isa = os.environ.get("MLXS_CPU_ISA", "best")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.merge and (args.out / "results.json").exists():
        rows = merged(json.loads((args.out / "results.json").read_text())["rows"], rows)
    if not rows:
        raise SystemExit(f"no case's name matches --only {args.only!r}")
    dates, rounds = ({str(r.get(key, "?")) for r in rows} for key in ("date", "rounds"))
    header = (
        f"{' and '.join(sorted(dates))}, {platform.machine()}, {args.threads} threads, path {isa}, "
        f"{Path(args.model).name}, {' or '.join(sorted(rounds))} alternating rounds, greedy. Measured between the cases: "
        f"{span(rows, 'read_gb_per_second')} GB/s read, {span(rows, 'f32_gflop_per_second')} GFLOP/s f32, "
        f"{span(rows, 'bf16_gflop_per_second')} GFLOP/s AMX bf16."
    )
    table = markdown(rows, header)
    (args.out / "results.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    (args.out / "results.md").write_text(table)
    (args.out / "results.svg").write_text(svg(rows, "mlx-serving, times faster than llama.cpp"))
    print(table)


main()
