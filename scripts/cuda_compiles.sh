#!/usr/bin/env bash
# Compiles the CUDA kernels for one kind of GPU, no GPU needed, and throws the result away: a test. Exit status 77 (skipped)
# without the compiler that scripts/cuda_toolkit.sh fetches. usage: scripts/cuda_compiles.sh [ARCHITECTURE, 90a]
set -euo pipefail
cd "$(dirname "$0")/.."

arch=${1:-90a}
nvcc=$(compgen -G '.venv-cuda/lib/python3*/site-packages/nvidia/cu*/bin/nvcc' || true)
[ -n "$nvcc" ] || exit 77
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
printf '%s\n' src/backend/cuda/*.cu | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '"$@" -c "{}" -o "$0/$(basename "{}").o"' "$out" \
  "$nvcc" -std=c++17 -O3 -Isrc --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra -Werror=all-warnings \
  "-gencode=arch=compute_$arch,code=sm_$arch"
