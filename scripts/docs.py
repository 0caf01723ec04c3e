"""Writes docs/cli.md from the program's own --help, and fails on a relative link in README.md or docs/ that leads nowhere.

usage: scripts/docs.py PROGRAM
"""

import re
import subprocess
import sys
from pathlib import Path

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


def broken_links() -> list[str]:
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def main() -> int:
    write_cli(sys.argv[1])
    broken = broken_links()
    for link in broken:
        print(f"docs: broken link in {link}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
