#!/usr/bin/env bash
# The CUDA compiler without a system toolkit: NVIDIA's own wheels from PyPI, pinned, in .venv-cuda, where cmake/cuda.cmake
# finds them. Compiles on machines without a GPU (CI). usage: scripts/cuda_toolkit.sh
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kPackages="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85"
readonly kStamp=.venv-cuda/packages
if [ -f "$kStamp" ] && [ "$(cat "$kStamp")" = "$kPackages" ]; then exit 0; fi

[ -x .venv-cuda/bin/pip ] || python3 -m venv .venv-cuda
# shellcheck disable=SC2086 # one word a package
.venv-cuda/bin/pip install --quiet --disable-pip-version-check --no-deps $kPackages
printf '%s' "$kPackages" >"$kStamp"
