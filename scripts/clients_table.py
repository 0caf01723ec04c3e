"""The table of endpoints and clients in docs/api.md from the tests' results (pytest's JUnit files), or a check that it is theirs.

usage: clients_table.py RESULTS_DIR [--check]
--check: exit 1 if the table is stale, 77 if not all of the clients' tests ran.
"""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from page_table import write_or_check

TESTS = [
    "test_anthropic_client",
    "test_client_helpers",
    "test_embeddings",
    "test_ollama_client",
    "test_ollama_models",
    "test_openai_client",
    "test_openai_node",
    "test_openai_responses",
]
# As they name themselves to the server.
CLIENTS = {
    "OpenAI/Python": "openai (Python)",
    "OpenAI/Node": "openai (Node)",
    "Anthropic/Python": "anthropic",
    "ollama-python": "ollama",
    "python-requests": "plain HTTP",
}


def client_of(agent):
    return next((name for start, name in CLIENTS.items() if agent.removeprefix("Async").startswith(start)), None)


def results(folder):
    """{endpoint: {client: {"whole", "streamed", "failed"}}}; None if a test's results are missing or all skipped."""
    cells = {}
    for test in TESTS:
        file = folder / f"e2e.{test}.xml"
        cases = list(ET.parse(file).getroot().iter("testcase")) if file.exists() else []
        if not any(case.find("skipped") is None for case in cases):
            return None
        for case in cases:
            failed = case.find("failure") is not None or case.find("error") is not None
            for value in (p.get("value") for p in case.iter("property") if p.get("name") == "heard"):
                for agent, endpoint, streamed in json.loads(value):
                    if client := client_of(agent):
                        result = "failed" if failed else "streamed" if streamed else "whole"
                        cells.setdefault(endpoint, {}).setdefault(client, set()).add(result)
    return cells


def cell(result):
    if not result:
        return ""
    return "failed" if "failed" in result else "whole, streamed" if len(result) == 2 else next(iter(result))


def table(cells):
    lines = ["| endpoint | " + " | ".join(CLIENTS.values()) + " |", "|---" * (len(CLIENTS) + 1) + "|"]
    for endpoint in sorted(cells, key=lambda e: e.partition(" ")[::-1]):
        lines.append(f"| `{endpoint}` | " + " | ".join(cell(cells[endpoint].get(name)) for name in CLIENTS.values()) + " |")
    return "\n".join(lines) + "\n"


def main():
    cells = results(Path(sys.argv[1]))
    if cells is None:
        print("the clients' tests did not all run: nothing to compare docs/api.md with")
        return 77
    return write_or_check("api.md", "clients", table(cells), sys.argv[1:], "clients_table.py")


if __name__ == "__main__":
    sys.exit(main())
