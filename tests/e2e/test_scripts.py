"""The scripts that the build's promises rest on: the include check finds what it must, the summary counts what ran."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import check_includes
import run_tests


@pytest.fixture(scope="module")
def table():
    return check_includes.module_table((check_includes.ROOT / "CMakeLists.txt").read_text())


@pytest.mark.parametrize(
    ("folder", "header"),
    [
        ("kv", "sched/scheduler.h"),  # against the arrow
        ("sched", "engine/runner.h"),
        ("models", "text/tokenizer.h"),
        ("fleet", "engine/runner.h"),
        ("kv", "boost/asio.hpp"),  # another module's package
        ("engine", "hiredis/hiredis.h"),
        ("engine", "mlx/mlx.h"),  # device toolkits outside their backend
        ("backend/cpu", "cuda_runtime.h"),
        ("nowhere", "base/log.h"),
    ],
)
def test_a_forbidden_include_is_found(table, folder, header):
    assert check_includes.violation(folder, header, table)


@pytest.mark.parametrize(
    ("folder", "header"),
    [
        ("engine", "sched/scheduler.h"),
        ("engine", "kv/kv_pool.h"),  # through sched
        ("cli", "serve/server.h"),
        ("serve", "boost/asio.hpp"),
        ("backend/mlx", "mlx/mlx.h"),
        ("backend/cuda", "cuda_runtime.h"),
        ("kv", "mlxs/error.h"),
        ("kv", "vector"),
    ],
)
def test_an_allowed_include_passes(table, folder, header):
    assert check_includes.violation(folder, header, table) is None


CTEST = """<testsuite>
  <testcase name="unit.a" status="run"><system-out>fine</system-out></testcase>
  <testcase name="unit.b" status="fail"><failure message="Failed"/><system-out>wrong</system-out></testcase>
  <testcase name="unit.c" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>[ RUN      ] c
x_test.cpp:3: Skipped
no model here
[  SKIPPED ] c</system-out></testcase>
  <testcase name="e2e.two" status="run"/>
  <testcase name="e2e.crashed" status="fail"><failure message="Timeout"/></testcase>
</testsuite>"""
TWO = """<testsuites><testsuite><testcase name="one"/><testcase name="two"><failure message="no"/></testcase>
  <testcase name="three"><skipped message="not today"/></testcase></testsuite></testsuites>"""
CRASHED = """<testsuites><testsuite><testcase name="before"/></testsuite></testsuites>"""


def test_the_summary_counts_single_cases(tmp_path):
    (tmp_path / "ctest.xml").write_text(CTEST)
    (tmp_path / "e2e.two.xml").write_text(TWO)
    (tmp_path / "e2e.crashed.xml").write_text(CRASHED)
    results = run_tests.collect(tmp_path / "ctest.xml", tmp_path)
    assert [name for name, _ in results["passed"]] == ["unit.a", "e2e.two::one", "e2e.crashed::before"]
    assert [name for name, _ in results["failed"]] == ["unit.b", "e2e.two::two", "e2e.crashed"]
    assert results["skipped"] == [("unit.c", "no model here"), ("e2e.two::three", "not today")]
