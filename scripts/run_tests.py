"""Runs ctest in one build folder and prints one summary; the last line is exactly `N passed, N failed`.

usage: scripts/run_tests.py BUILD_DIR [ctest arguments]
A gtest case counts as one, and so does each case of a pytest file (from its JUnit file). Skipped cases are listed with their
reason and count as neither. Exit status 1 when anything failed or nothing ran.
"""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def pulled_model(binary: Path, alias: str) -> str:
    """Path of the default model, fetched if it is not in the cache."""
    pulled = subprocess.run([binary, "pull", alias, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if pulled.returncode != 0:
        sys.exit("run_tests: the default model could not be fetched (message above)")
    return json.loads(pulled.stdout)["path"]


def outcome(case: ET.Element) -> tuple[str, str]:
    """(passed | failed | skipped, message) of one <testcase>, as ctest or pytest wrote it."""
    for tag, kind in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            return kind, (found.get("message") or "").strip()
    # ctest marks a test that could not run (missing program, timeout) only by its status
    return ("passed" if case.get("status", "run") == "run" else "failed"), case.get("status", "")


def skip_reason(output: str) -> str:
    """The text of GTEST_SKIP() from a gtest case's output."""
    lines = [line for line in output.splitlines() if line and not line.startswith(("[", "Running", "Note:"))]
    return next((line for line in lines if "Skipped" not in line), "")


def collect(junit: Path, pytest_dir: Path) -> dict[str, list[tuple[str, str]]]:
    results: dict[str, list[tuple[str, str]]] = {"passed": [], "failed": [], "skipped": []}
    for test in ET.parse(junit).getroot().iter("testcase"):
        name = test.get("name", "?")
        cases = pytest_dir / f"{name}.xml"
        kind, message = outcome(test)
        if not cases.exists():
            if kind == "skipped":
                message = skip_reason(test.findtext("system-out") or "") or message
            results[kind].append((name, message))
            continue
        inner = [(f"{name}::{case.get('name')}", *outcome(case)) for case in ET.parse(cases).getroot().iter("testcase")]
        for case_name, case_kind, case_message in inner:
            results[case_kind].append((case_name, case_message))
        # A file that broke outside its cases (a crash, a timeout) must not be counted as its passed cases alone.
        if kind == "failed" and not any(case_kind == "failed" for _, case_kind, _ in inner):
            results["failed"].append((name, message))
    return results


def main() -> int:
    build = Path(sys.argv[1]).resolve()
    junit = build / "ctest.xml"
    pytest_dir = build / "pytest"
    pytest_dir.mkdir(exist_ok=True)
    for stale in [junit, *pytest_dir.glob("*.xml")]:
        stale.unlink(missing_ok=True)

    env = dict(os.environ)
    env["PATH"] += os.pathsep + str(Path("build/promtool/usr/bin").resolve())  # scripts/promtool.sh
    env.setdefault("MLXS_TEST_MODEL", pulled_model(build / "mlx-serving", "smollm2"))
    env.setdefault("MLXS_TEST_ENCODER", pulled_model(build / "mlx-serving", "minilm"))
    env.setdefault("ASAN_OPTIONS", "detect_stack_use_after_return=1")
    env.setdefault("TSAN_OPTIONS", "halt_on_error=1")
    command = ["ctest", "--test-dir", str(build), "--output-on-failure", "--output-junit", str(junit)]
    command += ["--parallel", str(os.cpu_count() or 1), *sys.argv[2:]]
    status = subprocess.run(command, env=env, check=False).returncode
    if not junit.exists():
        print(f"run_tests: ctest wrote no results (exit {status})\n0 passed, 1 failed")
        return 1

    results = collect(junit, pytest_dir)
    for kind in ("skipped", "failed"):
        for name, message in results[kind]:
            print(f"{kind}: {name}" + (f": {message.splitlines()[0]}" if message else ""))
    passed, failed = len(results["passed"]), len(results["failed"])
    if results["skipped"]:
        print(f"{len(results['skipped'])} skipped")
    if status != 0 and failed == 0:
        print(f"run_tests: ctest itself failed (exit {status})")
        failed = 1
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
