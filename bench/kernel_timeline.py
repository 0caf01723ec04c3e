#!/usr/bin/env python3
"""A decode step's kernels as a picture: what bench/kernel_trace.cpp wrote, as SVG on standard output, the sums on standard error.

Kernels start while the one before ends; a bar begins when all before it have ended, so that bars are what each adds.
usage: bench/kernel_timeline.py trace.tsv[.gz] [--rows 8] [--layers 3] [--title TEXT] > step.svg
"""

import argparse
import collections
import gzip
import re
import subprocess
import sys
from html import escape

COLORS = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b", "#79706e", "#ff9da6", "#83bcb6"]


def read(path):
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    names = sorted({row[6] for row in rows})
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    noise = re.compile(r"^void |mlxs::cuda::|\(anonymous namespace\)::|[<(].*")
    short = {name: noise.sub("", text) for name, text in zip(names, plain, strict=False)}
    kernels = [(int(row[0]), int(row[1]), short[row[6]].removesuffix("_kernel"), row[2]) for row in rows]
    return sorted(kernels)


def steps(kernels):
    step = []
    for kernel in kernels:
        if kernel[2] == "embed" and step:
            yield step
            step = []
        step.append(kernel)
    yield step


def bars(step):
    """(start, end, name, grid) in us, one after the other."""
    zero = now = step[0][0]
    for start, end, name, grid in step:
        begin = max(start, now)
        if end > begin:
            yield (begin - zero) / 1e3, (end - zero) / 1e3, name, grid
            now = end


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    like = [s for s in steps(read(args.trace)) if s[0][3].startswith(f"{args.rows},")]
    lengths = collections.Counter(map(len, like))
    like = [s for s in like if len(s) == lengths.most_common(1)[0][0]]
    like.sort(key=lambda s: s[-1][1] - s[0][0])
    step = list(bars(like[len(like) // 2]))
    total = step[-1][1]
    sums = collections.Counter()
    counts = collections.Counter()
    busy = 0.0
    for start, end, name, grid in step:
        kind = f"{name} {grid}"
        sums[kind] += end - start
        counts[kind] += 1
        busy += end - start
    kinds = [kind for kind, _ in sums.most_common(len(COLORS) - 1)]
    color = {kind: COLORS[i] for i, kind in enumerate(kinds)}
    for kind, us in sums.most_common():
        print(f"{us:8.1f} us  {100 * us / total:4.1f} %  x{counts[kind]:<3} {kind}", file=sys.stderr)
    print(f"{total:8.1f} us a step of {len(step)} kernels, {100 - 100 * busy / total:.2f} % between them", file=sys.stderr)

    # A few layers from the middle: from one attention to another.
    attention = [i for i, bar in enumerate(step) if bar[2] in ("groups", "attend", "tiles")]
    middle = len(attention) // 2
    first, last = attention[middle] - 1, attention[min(len(attention) - 1, middle + args.layers)] - 1
    shown = step[first:last]
    width, left = 1100, 10
    legend = len(kinds) + (len(sums) > len(kinds))
    height = 150 + 18 * legend

    def draw(part, begin, end, top, tall):
        scale = width / (end - begin)
        for start, stop, name, grid in part:
            kind = f"{name} {grid}"
            fill = color.get(kind, COLORS[-1])
            tip = escape(f"{kind}: {stop - start:.1f} us")
            x, w = left + (start - begin) * scale, max(0.3, (stop - start) * scale)
            yield f'<rect x="{x:.1f}" y="{top}" width="{w:.1f}" height="{tall}" fill="{fill}"><title>{tip}</title></rect>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * left} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width + 2 * left}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="16">{escape(args.title)} one step, {total:.0f} us, {len(step)} kernels</text>',
        *draw(step, 0, total, 24, 28),
        f'<text x="{left}" y="76">{args.layers} layers of it, {shown[-1][1] - shown[0][0]:.0f} us</text>',
        *draw(shown, shown[0][0], shown[-1][1], 84, 40),
    ]
    rest = total - sum(sums[kind] for kind in kinds)
    lines = [(color[kind], kind, sums[kind], counts[kind]) for kind in kinds]
    if legend > len(kinds):
        lines.append((COLORS[-1], "all others, and between kernels", rest, len(step) - sum(counts[kind] for kind in kinds)))
    for i, (fill, kind, us, count) in enumerate(lines):
        y = 142 + 18 * i
        out.append(f'<rect x="{left}" y="{y}" width="12" height="12" fill="{fill}"/>')
        out.append(f'<text x="{left + 18}" y="{y + 11}">{escape(kind)}: {us:.0f} us in {count}, {100 * us / total:.0f} %</text>')
    print("\n".join(out + ["</svg>"]))


if __name__ == "__main__":
    main()
