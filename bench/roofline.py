"""Where a step stands between this machine's limits: rows a step against GFLOP/s, as a roofline in SVG.

usage: roofline.py BINARY MODEL OUT.svg [--threads 2]
Every point and every limit is measured in this run.
"""

import argparse
import datetime
import json
import math
import os
import subprocess
from pathlib import Path

LAYERS, HEAD = 106.2e6, 28.3e6  # weights of SmolLM2-135M: all layers; the head, which runs for rows that sample
ROWS = [1, 2, 4, 8, 16, 32, 64]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 460, 70, 30, 50, 50


def run_json(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def points(args):
    """(label, operations a byte of weights, GFLOP/s)"""
    for rows in ROWS:
        flags = ["--streams", rows, "--tokens", 48, "--threads", args.threads]
        figures = run_json(args.binary, "bench", "throughput", "--json", "--model", args.model, *flags)
        per_row = 2 * (LAYERS + HEAD)
        label = "1 row" if rows == 1 else str(rows)
        yield label, rows * per_row / figures["weight_bytes"], figures["tokens_per_second"] * per_row / 1e9
    flags = ["--case", "prefill", "--prompt-tokens", 512, "--threads", args.threads]
    figures = run_json(args.binary, "bench", "throughput", "--json", "--model", args.model, *flags)
    yield "prefill 512", 512 * 2 * LAYERS / figures["weight_bytes"], figures["tokens_per_second"] * 2 * LAYERS / 1e9


def draw(measured, limits, title):
    low_x, high_x, low_y = 1, 4096, 10
    high_y = max(limits["bf16_gflop_per_second"], limits["f32_gflop_per_second"]) * 2

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low_x) / math.log(high_x / low_x)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / low_y) / math.log(high_y / low_y)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="16" y="28" font-size="16" font-weight="600" fill="#111">{title}</text>'
    ]
    for tick in (1, 4, 16, 64, 256, 1024, 4096):
        out.append(f'<text x="{x(tick):.0f}" y="{HEIGHT - 28}" text-anchor="middle" fill="#666">{tick}</text>')
    for tick in (10, 100, 1000):
        out.append(
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.0f}" text-anchor="end" fill="#666">{tick}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.0f}" y2="{y(tick):.0f}" stroke="#eee"/>'
        )
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#444">operations a byte of weights</text>')
    out.append(f'<text x="16" y="{TOP - 6}" fill="#444">GFLOP/s</text>')
    bandwidth = limits["read_gb_per_second"]
    roofs = [("AMX bf16", limits["bf16_gflop_per_second"], "#c0392b"), ("f32", limits["f32_gflop_per_second"], "#8e6bbf")]
    peak = max(value for _, value, _ in roofs)
    out.append(
        f'<polyline points="{x(low_x):.0f},{y(low_x * bandwidth):.0f} {x(peak / bandwidth):.0f},{y(peak):.0f}" fill="none" '
        f'stroke="#2a7d4f" stroke-width="2"/><text x="{x(1.2):.0f}" y="{y(1.2 * bandwidth) - 12:.0f}" fill="#2a7d4f">'
        f"{bandwidth:.0f} GB/s</text>"
    )
    for name, value, color in roofs:
        if value > 0:
            start = x(value / bandwidth)
            out.append(
                f'<line x1="{start:.0f}" x2="{WIDTH - RIGHT}" y1="{y(value):.0f}" y2="{y(value):.0f}" stroke="{color}" '
                f'stroke-width="2"/><text x="{WIDTH - RIGHT}" y="{y(value) - 6:.0f}" text-anchor="end" fill="{color}">'
                f"{name} {value:.0f} GFLOP/s</text>"
            )
    for label, intensity, rate in measured:
        out.append(
            f'<circle cx="{x(intensity):.1f}" cy="{y(rate):.1f}" r="5" fill="#2f6fde"/>'
            f'<text x="{x(intensity) + 8:.1f}" y="{y(rate) + 16:.1f}" fill="#111">{label}</text>'
        )
    return "".join(out) + "</svg>\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    limits = run_json(args.binary, "bench", "limits", "--json", "--threads", args.threads)
    measured = list(points(args))
    for label, intensity, rate in measured:
        roof = min(intensity * limits["read_gb_per_second"], limits["bf16_gflop_per_second"] or limits["f32_gflop_per_second"])
        print(f"{label:12} {intensity:8.1f} op/byte {rate:8.0f} GFLOP/s, {rate / roof:.0%} of the roof")
    args.out.write_text(draw(measured, limits, f"One step of SmolLM2-135M Q4_1, {args.threads} threads, {datetime.date.today()}"))


main()
