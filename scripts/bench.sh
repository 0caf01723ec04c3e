#!/usr/bin/env bash
# Our Release build beside llama.cpp on this machine, then itself with and without all that watches it: bench/compare.py and
# bench/telemetry_cost.py, with the peer built here by clang with all that this
# processor has (gcc 12 builds of it die with an illegal instruction where AMX exists). usage: scripts/bench.sh [arguments of compare.py]
# BENCH_ISA=avx512 or avx2: both sides without what is above that instruction set.
# Then, unless --only asks for a case of compare.py, the server without a model (bench/transport.py, which needs no peer), what
# scheduling costs, and the server beside llama.cpp's (scripts/bench_serve.sh); `scripts/bench.sh transport|scheduler|serve
# [arguments]` runs one of these alone.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  transport) exec python3 bench/transport.py build/mlx-serving "${@:2}" ;;
  scheduler) exec build/mlx-serving bench scheduler "${@:2}" ;;
  serve) exec scripts/bench_serve.sh "${@:2}" ;;
esac

isa=${BENCH_ISA:-native}
case $isa in
  native) venv=.venv-bench ;;
  avx512 | avx2) venv=.venv-bench-$isa ;;
  *) echo "bench: BENCH_ISA is native, avx512 or avx2, not '$isa'" >&2 && exit 2 ;;
esac
stamp=$venv/peer
peer="llama-cpp-python==0.3.36 numpy==2.4.6"
if [ ! -f $stamp ] || [ "$(cat $stamp)" != "$peer" ]; then
  echo "bench: building llama.cpp from $peer into $venv (some minutes)" >&2
  rm -rf $venv
  python3 -m venv $venv
  if command -v clang++-16 >/dev/null; then export CC=clang-16 CXX=clang++-16; fi
  flags="-DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAVA_BUILD=OFF"
  case $isa in
    native)
      flags="$flags -DGGML_NATIVE=ON"
      if grep -qs amx_int8 /proc/cpuinfo; then flags="$flags -DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON -DGGML_AMX_BF16=ON"; fi
      ;;
    avx512)
      flags="$flags -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON"
      flags="$flags -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
      ;;
    avx2) flags="$flags -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON" ;;
  esac
  CMAKE_BUILD_PARALLEL_LEVEL=$(getconf _NPROCESSORS_ONLN) CMAKE_ARGS="$flags" \
    $venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-binary llama-cpp-python $peer >&2 # a cached wheel may have other flags
  echo "$peer" >$stamp
fi

model=$(build/mlx-serving pull smollm2 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')
if [ $isa != native ]; then
  export MLXS_CPU_ISA=$isa
  set -- --out bench/results/$isa "$@"
fi
$venv/bin/python bench/compare.py build/mlx-serving "$model" "$@"
case " $* " in *" --only"*) exit ;; esac # one case of those above
[ $isa = native ] || exit 0
$venv/bin/python bench/telemetry_cost.py build/mlx-serving "$model"
if [ -d /proc/self ]; then python3 bench/transport.py build/mlx-serving; fi
build/mlx-serving bench scheduler
scripts/bench_serve.sh
