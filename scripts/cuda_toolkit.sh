#!/usr/bin/env bash
# The CUDA compiler without a system toolkit: NVIDIA's own wheels from PyPI, pinned, in .venv-cuda, where cmake/cuda.cmake
# finds them. Compiles on machines without a GPU (CI). cublas: the library, too (0.5 GB), which prompts are faster with.
# usage: scripts/cuda_toolkit.sh [cublas]
set -euo pipefail
cd "$(dirname "$0")/.."

packages="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85"
[ "${1:-}" != cublas ] || packages="$packages nvidia-cublas==13.0.2.14"
readonly kStamp=.venv-cuda/packages
if [ -f "$kStamp" ]; then
  case "$(cat "$kStamp")" in "$packages"*) exit 0 ;; esac
fi

[ -x .venv-cuda/bin/pip ] || python3 -m venv .venv-cuda
# shellcheck disable=SC2086 # one word a package
.venv-cuda/bin/pip install --quiet --disable-pip-version-check --no-deps $packages
printf '%s' "$packages" >"$kStamp"
