"""docs/img/cuda-decode.svg from the tables of docs/cuda.md: tokens a second over streams, beside llama.cpp's.

usage: cuda_chart.py [--check]
--check: exit 1 if the picture is not of the tables' figures.
"""

import math
import re
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 440, 70, 190, 56, 50
COLORS = ["#2f6fde", "#c0392b", "#2a7d4f", "#8e6bbf"]
LOWEST, HIGHEST = 100, 40000


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(page):
    """{heading cell: (heading, [row])} of the page's tables."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = block.splitlines()
        found.setdefault(cells(lines[0])[0] or cells(lines[0])[1], (cells(lines[0]), [cells(line) for line in lines[2:]]))
    return found


def points(streams, row):
    """(streams, tokens a second) of the row's cells that hold a figure."""
    for count, cell in zip(streams, row, strict=False):
        if figure := re.match(r"[\d,]+", cell):
            yield int(re.match(r"\d+", count)[0]), int(figure[0].replace(",", ""))


def draw(lines):
    def x(streams):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(streams) / 6

    def y(rate):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(rate / LOWEST) / math.log(HIGHEST / LOWEST)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="16" y="28" font-size="16" font-weight="600" fill="#111">Decoding on one H200, 512 tokens of context</text>'
        f'<text x="16" y="{TOP - 8}" fill="#444">tokens/s, all streams together</text>'
        f'<text x="{(WIDTH + LEFT - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#444">streams</text>'
    ]
    for streams in (1, 2, 4, 8, 16, 32, 64):
        out.append(f'<text x="{x(streams):.0f}" y="{HEIGHT - 28}" text-anchor="middle" fill="#666">{streams}</text>')
    for rate in (100, 300, 1000, 3000, 10000, 30000):
        out.append(
            f'<text x="{LEFT - 8}" y="{y(rate) + 4:.0f}" text-anchor="end" fill="#666">{rate:,}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(rate):.0f}" y2="{y(rate):.0f}" stroke="#eee"/>'
        )
    for _, color, dashes, measured in lines:
        path = " ".join(f"{x(streams):.1f},{y(rate):.1f}" for streams, rate in measured)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"/>')
        for streams, rate in measured:
            fill = "#fff" if dashes else color
            out.append(
                f'<circle cx="{x(streams):.1f}" cy="{y(rate):.1f}" r="4" fill="{fill}" stroke="{color}" stroke-width="2"/>'
            )
    free = float("inf")  # labels from the lowest up, none on another
    for name, color, _, measured in sorted(lines, key=lambda line: line[3][-1][1]):
        free = min(y(measured[-1][1]) + 4, free - 15)
        out.append(f'<text x="{x(measured[-1][0]) + 10:.0f}" y="{free:.0f}" fill="{color}">{name}</text>')
    return "".join(out) + "</svg>\n"


def main():
    docs = Path(__file__).resolve().parent.parent / "docs"
    chart = docs / "img" / "cuda-decode.svg"
    found = tables((docs / "cuda.md").read_text())
    heading, rows = found["streams"]
    lines = [
        (row[0].replace(" g64", ""), color, "", list(points(heading[1:7], row[1:7])))
        for color, row in zip(COLORS, rows, strict=False)
    ]
    heading, rows = found["1 stream"]
    peer = next(row for row in rows if row[0] == "llama.cpp")
    lines.append(("llama.cpp, Qwen3-30B-A3B", "#888", "5 4", list(points(heading[1:5], peer[1:5]))))
    picture = draw(lines)
    if "--check" not in sys.argv:
        chart.write_text(picture)
    elif picture != chart.read_text():
        print("docs/img/cuda-decode.svg is not what docs/cuda.md says; draw it with: bench/cuda_chart.py")
        return 1
    return 0


sys.exit(main())
