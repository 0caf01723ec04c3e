#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: the kernel tests, what compute-sanitizer says of them, and the tables of docs/cuda.md. Runs in
# the source tree after `make gpu-check` built it, and in a folder that scripts/gpu_kit.sh packed.
# usage: scripts/gpu_check.sh [tests|memcheck|racecheck|figures|quick-figures]...   (default: tests figures)
# FILTER='*Conformance*': of the tests, only these.
set -euo pipefail
cd "$(dirname "$0")/.."

for bin in build build-cuda bin; do
  if [ -x $bin/mlx-serving ] && [ -x $bin/test_backend ]; then break; fi
done
[ -x $bin/test_backend ] || { echo "gpu-check: no mlx-serving and test_backend here: make gpu-check builds them" >&2; exit 1; }
[ ! -d lib ] || export LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if ! nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader; then
  echo "gpu-check: nvidia-smi finds no GPU" >&2
  exit 1
fi

# Every test that names the backend; "not listed" would look like "passed".
filter="${FILTER:-*}/cuda*"
listed=$($bin/test_backend --gtest_list_tests --gtest_filter="$filter" | grep -c '^ ' || true)
[ "$listed" -gt 0 ] || { echo "gpu-check: this build has no test for CUDA that is named '$filter'" >&2; exit 1; }

sanitizer() { # $1: its tool. Faults are exit status 9, whatever the tests said.
  local program
  program=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  [ -x "$program" ] || { echo "gpu-check: compute-sanitizer is part of the CUDA toolkit, which is not here" >&2; return 1; }
  "$program" --tool "$1" --error-exitcode 9 $bin/test_backend --gtest_brief=1 --gtest_filter="$filter"
}

failed=
[ $# -gt 0 ] || set -- tests figures
for part in "$@"; do
  echo "== $part"
  case $part in
    tests) $bin/test_backend --gtest_brief=1 --gtest_filter="$filter" ;;
    memcheck | racecheck) sanitizer "$part" ;;
    figures) python3 bench/gpu_figures.py $bin/mlx-serving ;;
    quick-figures) python3 bench/gpu_figures.py $bin/mlx-serving --steps 16 --streams 1,8 ;;
    *) echo "gpu-check: no part '$part': tests, memcheck, racecheck, figures or quick-figures" >&2 && exit 2 ;;
  esac || failed="$failed $part"
done
[ -z "$failed" ] || { echo "gpu-check: failed:$failed" >&2; exit 1; }
