"""Runs commands in a real terminal (a pty) and writes what happened, at its own speed, as an animated SVG.

usage: scripts/record_terminal.py OUT.svg COMMAND...
A viewer without animations shows the end of it. docs/img/terminal.svg is made by:
    scripts/record_terminal.py docs/img/terminal.svg "make run ARGS='run smollm2 \\"What is the capital of France?\\"'" ...
"""

import html
import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass

COLUMNS, FONT, CHAR, LINE, MARGIN = 96, 14, 8.43, 20, 16
TYPING = 0.03  # seconds a key
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


@dataclass
class Piece:
    """Text that appeared at one moment at one place of the screen."""

    at: float
    row: int
    column: int
    text: str
    typed: bool = False


class Screen:
    """Just enough of a terminal: newlines, carriage returns that redraw a line, wrapping."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.row = self.column = 0

    def write(self, at: float, text: str, typed: bool = False) -> None:
        for part in re.split(r"(\r\n|\n|\r)", text):
            if part in ("\r\n", "\n"):
                self.row, self.column = self.row + 1, 0
            elif part == "\r":
                self.column = 0
                self.pieces = [piece for piece in self.pieces if piece.row != self.row]  # a redrawn line keeps its last state
            while part.strip("\r\n"):
                room = COLUMNS - self.column
                self.pieces.append(Piece(at, self.row, self.column, part[:room], typed))
                self.column += len(part[:room])
                part = part[room:]
                if part:
                    self.row, self.column = self.row + 1, 0


def record(commands: list[str]) -> Screen:
    screen = Screen()
    now = 0.5
    for command in commands:
        screen.write(now, "$ ", typed=True)
        for key in command:
            screen.write(now, key, typed=True)
            now += TYPING
        screen.write(now, "\n")
        now = run(command, now + 0.3, screen) + 1.0
    return screen


def run(command: str, began: float, screen: Screen) -> float:
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(["bash", "-c", command], stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    start = time.monotonic()
    while True:
        readable, _, _ = select.select([master], [], [], 0.1)
        try:
            data = os.read(master, 65536) if readable else b""
        except OSError:
            break
        if data:
            screen.write(began + time.monotonic() - start, ESCAPES.sub("", data.decode(errors="replace")))
        elif process.poll() is not None:
            break
    os.close(master)
    if process.wait() != 0:
        sys.exit(f"record_terminal: '{command}' ended with status {process.returncode}")
    if screen.column:
        screen.write(0, "\n")
    return began + time.monotonic() - start


def text_element(piece: Piece) -> str:
    kind = "k" if piece.typed else "o"
    x, y = MARGIN + piece.column * CHAR, MARGIN + piece.row * LINE + FONT
    place = f'x="{x:.1f}" y="{y:.1f}" textLength="{len(piece.text) * CHAR:.1f}"'  # whatever font the viewer has
    return f'<text class="{kind}" {place} style="animation-delay:{piece.at:.2f}s">{html.escape(piece.text)}</text>'


def to_svg(screen: Screen) -> str:
    rows = max(piece.row for piece in screen.pieces) + 1
    width, height = round(COLUMNS * CHAR + 2 * MARGIN), rows * LINE + 2 * MARGIN
    texts = "\n".join(map(text_element, screen.pieces))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<style>
rect {{ fill: #14161b }}
text {{ font: {FONT}px ui-monospace, Menlo, Consolas, monospace; white-space: pre; animation: show 1ms backwards }}
.k {{ fill: #8fd18f }} .o {{ fill: #d7dae0 }}
@keyframes show {{ from {{ visibility: hidden }} to {{ visibility: visible }} }}
</style>
<rect width="100%" height="100%" rx="8"/>
{texts}
</svg>
"""


def main() -> None:
    out, *commands = sys.argv[1:]
    screen = record(commands)
    with open(out, "w") as file:
        file.write(to_svg(screen))


if __name__ == "__main__":
    main()
