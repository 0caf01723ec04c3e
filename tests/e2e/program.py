"""Runs the built program for the tests: one command to its end, or a server until the test is over."""

import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = os.environ.get("MLXS_BIN", "")
MODEL = os.environ.get("MLXS_TEST_MODEL", "")

needs_program = pytest.mark.skipif(not BIN, reason="MLXS_BIN is not set: run through ctest")
needs_model = pytest.mark.skipif(not (BIN and MODEL), reason="MLXS_TEST_MODEL is not set: run through make test")


@dataclass
class Result:
    status: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "MLXS_CACHE_DIR": str(cache), "MLXS_LOG_LEVEL": "info"}


def run(*arguments: str, cache: Path, stdin: str | None = None, timeout: float = 300) -> Result:
    done = subprocess.run(
        [BIN, *arguments],
        env=environment(cache),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


class ServeProcess:
    """`mlx-serving serve …` on a free port, up to its ready line."""

    def __init__(self, *arguments: str, cache: Path):
        self.log_path = cache / "serve.log"
        self.log = open(self.log_path, "w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [BIN, "serve", *arguments, "--port", "0"],
            env=environment(cache),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.ready_line = self.process.stdout.readline()
        match = re.search(r" on (https?://\S+)", self.ready_line)
        if not match:
            self.close()
            raise AssertionError(f"no ready line, status {self.process.returncode}: {self.errors()}")
        self.url = match[1]

    def errors(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 120) -> int:
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
