"""The table of docs/models.md from the results of the family tests (pytest's JUnit files), or a check that it is theirs.

usage: models_table.py RESULTS_DIR [--check]
What a backend that did not run here had in the table is kept. --check: exit 1 if the table is stale, 77 if the tests did not run.
"""

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from page_table import DOCS, write_or_check

FILES = {"safetensors": "parity.families.test_families.xml", "GGUF": "parity.families.test_gguf.xml"}
COLUMNS = [(backend, form) for backend in ("cpu", "mlx", "cuda") for form in FILES]
NO_FILE = {"llama-dynamic", "deepseek_v3-dense"}  # of GGUF: llama.cpp has no words for them


def results(folder):
    """{(configuration, backend, form): [storage forms that passed]}, in the order of the tests; None without the tests' files."""
    passed = {}
    for form, name in FILES.items():
        if not (folder / name).exists():
            return None
        for case in ET.parse(folder / name).getroot().iter("testcase"):
            found = [p.get("value") for p in case.iter("property") if p.get("name") == "result"]
            if not found or case.find("failure") is not None:
                continue
            result = json.loads(found[0])
            for backend in dict.fromkeys(path.split("/")[0] for path in result["errors"]):
                passed.setdefault((result["family"], backend, form), []).append(result["format"])
    return passed


def cells_of(page):
    """{(configuration, backend, form): text} of the table as it stands."""
    rows = [re.split(r" *\| *", line.strip("| \n")) for line in page.splitlines() if line.startswith("| ")]
    return {(row[0], *column): text for row in rows[1:] for column, text in zip(COLUMNS, row[1:], strict=False)}


def table(passed, before):
    ran = {backend for _, backend, _ in passed}
    lines = ["| configuration | " + " | ".join(f"{backend}, {form}" for backend, form in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for family in dict.fromkeys(key[0] for key in passed):
        row = []
        for backend, form in COLUMNS:
            if form == "GGUF" and family in NO_FILE:
                row.append("–")
            elif backend in ran:
                forms = passed.get((family, backend, form), ["failed"])
                named = before.get((family, backend, form), "").split(", ")
                # A GPU runs more forms than its emulation, whose forms the page names.
                row.append(", ".join(named if backend == "cuda" and set(named) < set(forms) else forms))
            else:
                row.append(before.get((family, backend, form), "supported"))
        lines.append(f"| {family} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def main():
    passed = results(Path(sys.argv[1]))
    if not passed:
        print("the family tests did not run: nothing to compare docs/models.md with")
        return 77
    rows = table(passed, cells_of((DOCS / "models.md").read_text()))
    return write_or_check("models.md", "models", rows, sys.argv[1:], "models_table.py")


sys.exit(main())
