"""`cmake --install`, then a program of someone else's built against the installed package alone: examples/hello."""

import os
import subprocess
from pathlib import Path

import pytest
from program import MODEL, needs_model

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MLXS_BUILD_DIR", "build"))

pytestmark = needs_model


def sh(*command, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cache_value(name: str) -> str:
    for line in (BUILD / "CMakeCache.txt").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition("=")[2]
    return ""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix")
    sh("cmake", "--install", BUILD, "--prefix", folder)
    return folder


def test_the_installed_tree_is_complete_and_knows_no_build_folder(prefix):
    assert (prefix / "bin" / "mlx-serving").exists()
    assert (prefix / "include" / "mlxs" / "engine.h").exists()
    configs = list(prefix.rglob("*.cmake"))
    assert any(path.name == "mlx-serving-config.cmake" for path in configs)
    for path in configs:
        text = path.read_text()
        assert str(BUILD) not in text, path
        assert str(ROOT) not in text, path


def test_the_installed_program_runs(prefix):
    assert sh(prefix / "bin" / "mlx-serving", "--version").startswith("mlx-serving ")


def test_hello_builds_against_the_package_and_answers(prefix, tmp_path):
    source = ROOT / "examples" / "hello"
    code = [line for line in (source / "main.cpp").read_text().splitlines() if line.strip()]
    assert len(code) <= 20
    flags = [f"-DCMAKE_PREFIX_PATH={prefix}"]
    if sanitizers := cache_value("MLXS_SANITIZE"):  # the libraries need the same run time
        flags += [f"-DCMAKE_CXX_FLAGS=-fsanitize={sanitizers}"]
    sh("cmake", "-S", source, "-B", tmp_path / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *flags)
    sh("cmake", "--build", tmp_path / "build")
    env = {**os.environ, "MLXS_CACHE_DIR": str(tmp_path / "cache")}
    answer = sh(tmp_path / "build" / "hello", MODEL, "What is the capital of France?", env=env, timeout=300)
    assert "Paris" in answer
