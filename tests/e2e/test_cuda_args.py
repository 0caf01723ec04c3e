"""scripts/cuda_args.sh: what a build is told about the NVIDIA GPUs of its machine, with a nvidia-smi and an nvcc that we play."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLKIT = Path("/usr/local/cuda/bin/nvcc")


@pytest.fixture
def machine(tmp_path):
    """A function (GPUs' capabilities, the driver's CUDA, nvcc's release or none, environment) → the script's run."""

    def run(capabilities, driver="13.0", nvcc=None, **environment):
        def program(name, text):
            path = tmp_path / name
            path.write_text("#!/bin/sh\n" + text)
            path.chmod(0o755)
            return str(path)

        if capabilities is None:  # as without a driver; hides the machine's own
            program("nvidia-smi", "exit 9\n")
        else:
            program(
                "nvidia-smi",
                f'case "$*" in *compute_cap*) printf "%s\\n" {capabilities} ;; *name*) echo "A GPU" ;; '
                f'*) echo "| Driver Version: 1  CUDA Version: {driver} |" ;; esac\n',
            )
        if nvcc:
            environment["CUDACXX"] = program("nvcc", f'echo "Cuda compilation tools, release {nvcc}, V{nvcc}.1"\n')
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")} | environment
        return subprocess.run([ROOT / "scripts/cuda_args.sh"], env=environment, capture_output=True, text=True, check=True)

    return run


def test_without_a_gpu_nothing_is_said(machine):
    result = machine(None)
    assert (result.stdout, result.stderr) == ("", "")


def test_machine_code_for_the_gpus_that_are_here(machine, tmp_path):
    result = machine("9.0 8.6 9.0 12.0", nvcc="12.8")
    assert result.stdout.splitlines() == [
        "-DMLXS_CUDA=ON",
        "-DMLXS_CUDA_ARCHITECTURES=120-real;86-real;90a-real",
        f"-DCMAKE_CUDA_COMPILER={tmp_path}/nvcc",
    ]
    assert "A GPU" in result.stderr


def test_older_gpus_are_left_out_and_named(machine):
    result = machine("7.5 8.0", nvcc="13.0")
    assert "-DMLXS_CUDA_ARCHITECTURES=80-real" in result.stdout
    assert "7.5 is left out" in result.stderr
    assert machine("6.1", nvcc="13.0").stdout == ""


def test_cuda_off_leaves_gpus_alone(machine):
    assert machine("9.0", nvcc="13.0", CUDA="off").stdout == ""


@pytest.mark.skipif(TOOLKIT.exists(), reason="this machine has a toolkit of its own")
def test_an_old_driver_and_an_old_toolkit_build_for_the_processor_and_say_so(machine):
    result = machine("9.0", driver="12.4", nvcc="12.4")
    assert result.stdout == ""
    assert "driver is too old" in result.stderr and "12.8" in result.stderr
