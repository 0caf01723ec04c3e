#!/usr/bin/env bash
# Our Release build beside llama.cpp on this machine: bench/compare.py, with the peer built here by clang with all that this
# processor has (gcc 12 builds of it die with an illegal instruction where AMX exists). usage: scripts/bench.sh [arguments of compare.py]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-bench
stamp=$venv/peer
peer="llama-cpp-python==0.3.36 numpy==2.4.6"
if [ ! -f $stamp ] || [ "$(cat $stamp)" != "$peer" ]; then
  echo "bench: building llama.cpp from $peer into $venv (some minutes)" >&2
  rm -rf $venv
  python3 -m venv $venv
  if command -v clang++-16 >/dev/null; then export CC=clang-16 CXX=clang++-16; fi
  flags="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAVA_BUILD=OFF"
  if grep -qs amx_int8 /proc/cpuinfo; then flags="$flags -DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON -DGGML_AMX_BF16=ON"; fi
  CMAKE_BUILD_PARALLEL_LEVEL=$(getconf _NPROCESSORS_ONLN) CMAKE_ARGS="$flags" \
    $venv/bin/pip install --quiet --disable-pip-version-check --no-binary llama-cpp-python $peer >&2
  echo "$peer" >$stamp
fi

model=$(build/mlx-serving pull smollm2 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')
exec $venv/bin/python bench/compare.py build/mlx-serving "$model" "$@"
