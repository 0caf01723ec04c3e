"""A table that stands in a page of docs between two marks, `<!-- name -->` and `<!-- /name -->`: written anew, or checked."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def write_or_check(page, name, table, arguments, script):
    """Puts the table (lines that end in a newline) between the marks; with --check among the arguments (RESULTS_DIR first) only
    compares. Returns the exit status: 1 if it is stale."""
    before = (DOCS / page).read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    after = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + table + end, before, flags=re.DOTALL)
    if "--check" not in arguments:
        (DOCS / page).write_text(after)
    elif after != before:
        print(f"docs/{page} is not what the tests say; write it with: scripts/{script} {arguments[0]}")
        return 1
    return 0
